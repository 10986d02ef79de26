"""The body of an exported C function: blocks that compute one value after the other, and the memory of the values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray

__all__ = ["Block", "Program", "Value", "loop"]

#: Characters in a line of constants.
_LINE = 116


@dataclass(eq=False)
class Value:
    """A sample between two layers: `size` numbers in row-major order."""

    size: int


@dataclass(eq=False)
class Block:
    """Computes a value.

    Attributes
    ----------
    comment : str
    sources : sequence of Value
        In C they are called x and z.
    target : Value
        In C it is called y.
    constants : dict of arrays
    lines : list of str
    elementwise : bool
        Whether an element of y is written after the elements of x that it depends on were read for the last time, so
        that y may take the place of x.
    """

    comment: str
    sources: Sequence[Value]
    target: Value
    constants: dict[str, HostArray]
    lines: list[str]
    elementwise: bool


@dataclass(eq=False)
class _Storage:
    """Memory of one value, or of several that replace each other, between two blocks."""

    size: int
    first: int
    last: int
    place: str = ""
    offset: int = 0


@dataclass(eq=False)
class Program:
    """The blocks of a function, in order.

    Attributes
    ----------
    dtype : numpy dtype
        Of the computation.
    input : Value
    input_type : str
        Its type in C.
    scale : float
        Factor on the input.
    blocks : list of Block
    """

    dtype: np.dtype[Any]
    input: Value
    input_type: str
    scale: float
    blocks: list[Block] = field(default_factory=list)

    @property
    def real(self) -> str:
        """The type of numbers in C."""
        return "float" if self.dtype == np.float32 else "double"

    def function(self, name: str) -> str:
        """A function of math.h for these numbers."""
        return f"{name}f" if self.dtype == np.float32 else name

    def number(self, value: float) -> str:
        """A constant with exactly this value, rounded to the dtype."""
        return self._numbers([value])[0]

    def _numbers(self, values: Iterable[float]) -> list[str]:
        exact = np.asarray(values, self.dtype).astype(np.float64).tolist()
        suffix = "f" if self.dtype == np.float32 else ""
        finite = [each.hex() + suffix if each - each == 0 else _not_finite(each) for each in exact]
        # Without the zeros at the end.
        return re.sub(r"\.?0*p", "p", " ".join(finite)).split(" ")

    def read(self, value: Value, index: str, name: str = "x") -> str:
        """An element of a value. The input is converted and scaled when it is read."""
        element = f"{name}[{index}]"
        if value is not self.input:
            return element
        if self.input_type != self.real:
            element = f"({self.real}){element}"
        return element if self.scale == 1 else f"{element} * {self.number(self.scale)}"

    def add(
        self,
        comment: str,
        sources: Sequence[Value],
        size: int,
        lines: list[str],
        constants: dict[str, HostArray] | None = None,
        elementwise: bool = False,
    ) -> Value:
        """Add a block and return its value."""
        target = Value(size)
        self.blocks.append(Block(comment, sources, target, constants or {}, lines, elementwise))
        return target

    def write(self, output: Value) -> tuple[list[str], int]:
        """The lines of the function's body, and the number of elements of its workspace."""
        storages = self._storages(output)
        workspace = _place([each for each in dict.fromkeys(storages.values()) if not each.place])
        lines = []
        for block in self.blocks:
            lines += ["", f"/* {block.comment} */", "{"]
            for name, values in block.constants.items():
                lines += [f"    {line}" for line in self._array(name, values)]
            for name, source in zip("xz", block.sources, strict=False):
                of_input = source is self.input
                kind, place = (self.input_type, "input") if of_input else (self.real, storages[source].place)
                lines.append(f"    const {kind} *{name} = {place};")
            lines.append(f"    {self.real} *y = {storages[block.target].place};")
            lines += [f"    {line}" for line in block.lines] + ["}"]
        return lines[1:], workspace

    def _storages(self, output: Value) -> dict[Value, _Storage]:
        """Where each value is. The result is in the caller's `output`."""
        last = {value: number for number, block in enumerate(self.blocks) for value in block.sources}
        storages: dict[Value, _Storage] = {}
        for number, block in enumerate(self.blocks):
            source, target = block.sources[0], block.target
            if block.elementwise and source is not self.input and last[source] == number:
                storages[target] = storages[source]
            else:
                storages[target] = _Storage(target.size, number, number)
            storages[target].last = last.get(target, len(self.blocks))
        storages[output].place = "output"
        return storages

    def _array(self, name: str, values: HostArray) -> list[str]:
        lines, line = [], "   "
        for number in self._numbers(values.reshape(-1)):
            if len(line) + len(number) + 2 > _LINE:
                lines.append(line)
                line = "   "
            line += f" {number},"
        return [f"static const {self.real} {name}[{values.size}] = {{", *lines, line.removesuffix(","), "};"]


def _not_finite(value: float) -> str:
    return "NAN" if value != value else "INFINITY" if value > 0 else "(-INFINITY)"


def _place(storages: Sequence[_Storage]) -> int:
    """Give each storage a place in the workspace, the largest first; those that are in use at the same time do not
    overlap."""
    placed: list[_Storage] = []
    for storage in sorted(storages, key=lambda each: -each.size):
        for other in sorted(placed, key=lambda each: each.offset):
            together = other.first <= storage.last and storage.first <= other.last
            if together and other.offset < storage.offset + storage.size:
                storage.offset = max(storage.offset, other.offset + other.size)
        storage.place = f"workspace + {storage.offset}" if storage.offset else "workspace"
        placed.append(storage)
    return max((each.offset + each.size for each in placed), default=0)


def loop(name: str, count: int, body: Sequence[str], start: int = 0) -> list[str]:
    """A loop over ``start <= name < count``."""
    return [f"for (long {name} = {start}; {name} < {count}; {name}++) {{", *(f"    {line}" for line in body), "}"]
