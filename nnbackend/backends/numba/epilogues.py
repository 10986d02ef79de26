"""What is done with the finished sums of a product while they are in registers: stored, or taken as a gradient.

An update in the epilogue of ``x.T @ delta`` saves the gradient its way to memory and back, and hides the way of the
parameters behind the computing of the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nnbackend.backends.numba.simd import Simd, Value
from nnbackend.backends.numba.updates import RULES, Rule, Updating

__all__ = ["EPILOGUES", "Epilogue"]


class Finish(Protocol):
    """Takes a finished vector of the result to where it belongs."""

    def places(self, out: Value) -> Sequence[Value]:
        """What will be read or written when the result would begin at `out`."""

    def __call__(self, vector: Value, out: Value, mask: Value | None) -> None:
        """The lanes of the mask belong to the result."""


class Epilogue(Protocol):
    """Writes the code at the end of a tile.

    Attributes
    ----------
    name : str
    """

    @property
    def name(self) -> str: ...

    def begin(self, simd: Simd, record: Value) -> Finish:
        """What the tile needs to know first; the record is at that address."""


class _Store:
    name = "store"

    def begin(self, simd: Simd, record: Value) -> Finish:
        return _Storing(simd)


class _Storing:
    def __init__(self, simd: Simd) -> None:
        self._simd = simd

    def places(self, out: Value) -> Sequence[Value]:
        return [out]

    def __call__(self, vector: Value, out: Value, mask: Value | None) -> None:
        self._simd.store(vector, out, mask)


class _Update:
    def __init__(self, rule: Rule) -> None:
        self.name = rule.name
        self._rule = rule

    def begin(self, simd: Simd, record: Value) -> Finish:
        return Updating(simd, record, self._rule)


#: By name.
EPILOGUES: dict[str, Epilogue] = {epilogue.name: epilogue for epilogue in (_Store(), *map(_Update, RULES))}
