"""Epilogues of a product: the finished sums are stored, or applied as a gradient while they are in registers.

An update in the epilogue of ``x.T @ delta`` need not store and load the gradient, and loads the parameters while the
sums are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from nnbackend.backends.numba.simd import Simd, Value
from nnbackend.backends.numba.updates import RULES, Rule, Updating

__all__ = ["EPILOGUES", "Epilogue"]


class Epilogue(Protocol):
    """Generates the code at the end of a tile."""

    def places(self, out: Value, /) -> Sequence[Value]:
        """Pointers to the memory that is accessed for a result at `out`."""

    def __call__(self, vector: Value, out: Value, mask: Value | None, /) -> None:
        """Store or apply a finished vector, in the lanes of the mask."""


class _Storing:
    def __init__(self, simd: Simd, record: Value) -> None:
        self._simd = simd

    def places(self, out: Value, /) -> Sequence[Value]:
        return [out]

    def __call__(self, vector: Value, out: Value, mask: Value | None, /) -> None:
        self._simd.store(vector, out, mask)


def _updating(rule: Rule, simd: Simd, record: Value) -> Epilogue:
    return Updating(simd, record, rule)


#: Makers of epilogues by name, from a tile's code generator and the address of a record, as in `updates.py`.
EPILOGUES: dict[str, Callable[[Simd, Value], Epilogue]] = {
    "store": _Storing,
    **{rule.name: partial(_updating, rule) for rule in RULES},
}
