"""What is done with the finished sums of a product while they are in registers: stored, or taken as a gradient.

An update in the epilogue of ``x.T @ delta`` saves the gradient its way to memory and back, and hides the way of the
parameters behind the computing of the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from nnbackend.backends.numba.simd import Simd, Value
from nnbackend.backends.numba.updates import RULES, Rule, Updating

__all__ = ["EPILOGUES", "Epilogue"]


class Epilogue(Protocol):
    """Writes the code at the end of a tile."""

    def places(self, out: Value, /) -> Sequence[Value]:
        """Pointers to what will be read or written when the result would begin at `out`."""

    def __call__(self, vector: Value, out: Value, mask: Value | None, /) -> None:
        """Take a finished vector to where it belongs; the lanes of the mask are part of the result."""


class _Storing:
    def __init__(self, simd: Simd, record: Value) -> None:
        self._simd = simd

    def places(self, out: Value, /) -> Sequence[Value]:
        return [out]

    def __call__(self, vector: Value, out: Value, mask: Value | None, /) -> None:
        self._simd.store(vector, out, mask)


def _updating(rule: Rule, simd: Simd, record: Value) -> Epilogue:
    return Updating(simd, record, rule)


#: By name: from a tile's code and the address of a record, as in `updates.py`.
EPILOGUES: dict[str, Callable[[Simd, Value], Epilogue]] = {
    "store": _Storing,
    **{rule.name: partial(_updating, rule) for rule in RULES},
}
