"""The lines of a program: each is one call of an operation, with the record that its compiled function reads.

The arrays that a line reads and writes, and how it may be split, follow from the operation's declaration in
:mod:`nnbackend.backends.operations`. So does its record: addresses, dimensions and constants have the names of the
declaration.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.declaration import OPERATIONS, Argument, Call
from nnbackend.backends.numba.activations import ACTIVATION_CODES
from nnbackend.backends.numba.records import INTEGER, REAL, Record
from nnbackend.backends.numba.updates import rule_of
from nnbackend.backends.operations import Operations
from nnbackend.support.fork_lock import cached_property

__all__ = [
    "Addresses", "Array", "Line", "LineKind", "Span", "Split", "UnsupportedStepError", "Update", "UpdateLine",
    "declared_record", "is_cut", "uses_of",
]  # fmt: skip

Array = npt.NDArray[Any]
#: Address of the first byte, and the address after the last.
Span = tuple[int, int]


class UnsupportedStepError(Exception):
    """A step that cannot be compiled to a program; the message says why."""


@dataclass(frozen=True)
class Split:
    """How the threads share a line's work.

    Two lines are split identically only if both the unit and the count are equal.

    Attributes
    ----------
    unit : {"rows", "positions", "columns", "parts", "none"}
        Rows of the batch, positions of its images, columns of the result, or parts of a result without a batch axis.
        With "none" the first thread does all the work.
    count : int
        Number of these units.
    """

    unit: str
    count: int = 1

    @property
    def in_turn(self) -> bool:
        """Whether a thread that has finished its share of one such line may start its share of the next without
        waiting."""
        return self.unit != "parts"


class Addresses:
    """A cache of array addresses: NumPy is slow to provide them, and many lines use the same array.

    The arrays must outlive this object.
    """

    def __init__(self) -> None:
        self._known: dict[int, Span] = {}

    def span(self, array: Array) -> Span:
        """The address range of an array."""
        known = self._known.get(id(array))
        if known is None:
            begin: int = array.__array_interface__["data"][0]
            known = self._known[id(array)] = begin, begin + array.nbytes
        return known

    def of(self, call: Call) -> dict[str, Span]:
        """The spans of a call's arrays by name, except for the counter."""
        arguments = call.arguments
        return {
            name: self.span(array)
            for name in uses_of(call.operation).arrays
            if (array := arguments.get(name)) is not None
        }


@dataclass(frozen=True, eq=False)
class LineKind:
    """A compiled function, and the calls that it supports.

    Attributes
    ----------
    name : str
        Name of the function.
    operations : tuple of str
        The operations of the contract that it computes.
    record : Record
        The record that it reads.
    make : callable
        Creates the function that Numba compiles.
    accepts : callable
        Takes a call of its operation; returns whether the function supports it.
    values : dict of callable
        Fields of the record that are not in the declaration, computed from the call.
    work : callable
        Takes a call; returns its cost in multiply-adds.
    follows : str
        If the array with this name was written by columns, this line is also split by columns.
    is_product : bool
        Whether it is a matrix product, which may be split by columns where that is faster.
    scratch : callable
        Takes a call; returns the bytes of temporary memory that a thread needs.
    """

    name: str
    operations: tuple[str, ...]
    record: Record
    make: Callable[..., Any]
    accepts: Callable[[Call], bool]
    values: Mapping[str, Callable[[Call], Any]]
    work: Callable[[Call], int]
    follows: str = ""
    is_product: bool = False
    scratch: Callable[[Call], int] = lambda call: 0

    @cached_property
    def updates(self) -> bool:
        """Whether the line may end with an update."""
        return "update" in dict(self.record.fields)

    @cached_property
    def calls_product(self) -> bool:
        """Whether its record has the addresses of matrix products."""
        return "product" in dict(self.record.fields)


@dataclass(eq=False)
class Line:
    """One line of a program.

    Attributes
    ----------
    kind : LineKind
    call : Call
    split : Split
    spans : dict of Span
        Its arrays by name, except for the counter, which only the epoch function accesses.
    update : Update, optional
        The update of the parameters whose gradient it computes.
    wait : bool
        Whether there is a barrier before it.
    """

    kind: LineKind
    call: Call
    split: Split
    spans: Mapping[str, Span]
    update: Update | None = None
    wait: bool = False

    @property
    def late(self) -> bool:
        """Whether it can be delayed, because no activation or activation gradient depends on it."""
        return not uses_of(self.call.operation).of_batch

    @property
    def result(self) -> Span:
        """The first array that it writes."""
        return next(self.spans[name] for name in uses_of(self.call.operation).written if name in self.spans)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its real arrays; float32 if it has none."""
        for name in uses_of(self.call.operation).real:
            array = self.call.arguments.get(name)
            if array is not None and array.dtype.kind == "f":
                dtype: np.dtype[Any] = array.dtype
                return dtype
        return np.dtype(np.float32)

    def touched(self) -> list[Span]:
        """All spans that it reads or writes."""
        return [*self.spans.values(), *self._updated()]

    def written(self) -> list[Span]:
        """All spans that it writes, its result first."""
        spans = self.spans
        return [*(spans[name] for name in uses_of(self.call.operation).written if name in spans), *self._updated()]

    def elsewhere(self) -> list[Span]:
        """Spans that a thread reads beyond its own share."""
        names = uses_of(self.call.operation).elsewhere.get(self.split.unit, ())
        return [self.spans[name] for name in names if name in self.spans]

    def fields(self) -> dict[str, Any]:
        """The values of its record, except for the update."""
        call, spans = self.call, self.spans
        shapes = uses_of(call.operation).shapes
        values: dict[str, Any] = {"by_columns": self.split.unit == "columns"}
        for name, value in call.arguments.items():
            if name in spans:
                values[name] = spans[name][0]
                values.update(zip(shapes[name].get(value.ndim, ()), value.shape, strict=False))
            elif name not in shapes:
                values[name] = _code(call.operation, name, value) if isinstance(value, str) else value
        for name, make in self.kind.values.items():
            values[name] = make(call)
        return values

    def _updated(self) -> list[Span]:
        return [] if self.update is None else self.update.parts(self.result)


@functools.cache
def _code(operation: str, argument: str, value: str) -> int:
    """The number of a constant that is a name."""
    if argument == "activation":
        return ACTIVATION_CODES[value]
    return list(OPERATIONS[operation].arguments[argument].names or ()).index(value)


@dataclass(frozen=True)
class Uses:
    """Facts about an operation's arguments, derived from its declaration.

    Attributes
    ----------
    arrays, written, real : tuple of str
        Its arrays, the ones that it writes, and those of type "real"; all without the counter.
    shapes : dict
        Names of the dimensions, by array and number of axes.
    elsewhere : dict
        By the unit of a split: arrays of which a thread reads more than its own share.
    of_batch : bool
        Whether its result belongs to rows of the batch.
    """

    arrays: tuple[str, ...]
    written: tuple[str, ...]
    real: tuple[str, ...]
    shapes: Mapping[str, Mapping[int, tuple[str, ...]]]
    elsewhere: Mapping[str, tuple[str, ...]]
    of_batch: bool


@functools.cache
def uses_of(operation: str) -> Uses:
    declared = OPERATIONS[operation]
    arrays = {name: declared.arguments[name] for name in declared.arrays}
    arrays.pop("counter", None)
    return Uses(
        arrays=tuple(arrays),
        written=tuple(name for name, argument in arrays.items() if argument.written),
        real=tuple(name for name, argument in arrays.items() if any("real" in dtype for dtype in argument.dtypes)),
        shapes={name: _extents(operation, declared.arguments[name]) for name in declared.arrays},
        elsewhere={
            unit: tuple(name for name, argument in arrays.items() if not is_cut(operation, argument, unit))
            for unit in ("rows", "positions", "columns")
        },
        of_batch=bool({"rows", "positions"} & set(declared.splits)),
    )


def _extents(operation: str, argument: Argument) -> dict[int, tuple[str, ...]]:
    """The fields for an array's dimensions, by number of axes; none if any number of axes is allowed."""
    return {
        len(shape): tuple(_field(operation, extent) for extent in shape)
        for shape in argument.shapes
        if not any(_is_open(extent) for extent in shape)
    }


def _is_open(extent: str | int) -> bool:
    """Whether it stands for any number of extents."""
    return isinstance(extent, str) and extent.startswith("*")


def _field(operation: str, extent: str | int) -> str:
    """The field for a dimension: its name, unless an argument has the same name."""
    return f"{extent}_count" if extent in OPERATIONS[operation].arguments else str(extent)


def is_cut(operation: str, argument: Argument, unit: str) -> bool:
    """Whether a thread with a share of the rows or columns uses only the same share of an argument.

    Rows are the first dimension of the first array that the operation writes, and columns its last. Another array is
    split into the same columns only if they are its last dimension, too.
    """
    declared = OPERATIONS[operation]
    result = declared.arguments[declared.written[0]].shapes[0]
    if unit == "columns":
        return all(shape[-1] == result[-1] for shape in argument.shapes)
    return all(result[0] in shape for shape in argument.shapes)


def declared_record(operation: str, *more: tuple[str, str]) -> Record:
    """The record of an operation, derived from its declaration: addresses, dimensions and constants by name.

    Parameters
    ----------
    operation : str
    *more : (name, kind)
        Further fields.
    """
    declared = OPERATIONS[operation]
    annotations = inspect.get_annotations(getattr(Operations, operation))
    fields: dict[str, str] = {}
    for name, argument in declared.arguments.items():
        if argument.access == "constant":
            fields[name] = REAL if annotations[name] == "float" else INTEGER
        elif name != "counter":
            fields[name] = INTEGER
            for shape in argument.shapes:
                named = [extent for extent in shape if isinstance(extent, str) and not _is_open(extent)]
                fields.update((_field(operation, extent), INTEGER) for extent in named)
    if "columns" in declared.splits:
        fields["by_columns"] = INTEGER
    return Record(operation, (*fields.items(), *more))


#: Parameters begin at multiples of at least this many elements, so a shorter gap is never a parameter.
_PADDING = 16


@dataclass(eq=False)
class Update:
    """An optimiser's step for the flat buffers, which can be divided into parts.

    Attributes
    ----------
    call : Call
    rule : int
        Of `updates.py`.
    gradients : Span
    buffers : list of Span
        The parameters and the slots.
    rates : Span
    momenta : Span
        (0, 0) if every step has the same.
    itemsize : int
        Bytes of an element.
    """

    call: Call
    rule: int
    gradients: Span
    buffers: list[Span]
    rates: Span
    momenta: Span
    itemsize: int

    @classmethod
    def of(cls, call: Call, spans: Mapping[str, Span]) -> Update:
        """The update for a call of an optimiser's operation."""
        buffers = [spans[name] for name in uses_of(call.operation).written if name in spans]
        rates, momenta = spans["learning_rates"], spans.get("momenta", (0, 0))
        return cls(call, rule_of(call), spans["gradients"], buffers, rates, momenta, call.gradients.itemsize)

    def covers(self, gradient: Span) -> bool:
        """Whether a span is part of the gradients."""
        return self.gradients[0] <= gradient[0] and gradient[1] <= self.gradients[1]

    def parts(self, gradient: Span) -> list[Span]:
        """The parts of the parameters and slots that correspond to a part of the gradients."""
        begin, end = (edge - self.gradients[0] for edge in gradient)
        return [(buffer + begin, buffer + end) for buffer, _ in self.buffers]

    def without(self, done: Iterable[Span]) -> list[Span]:
        """The remaining gradients, except for the padding between parameters, where everything is 0."""
        done = sorted(done)
        begin, left = self.gradients[0], []
        for span in [*done, (self.gradients[1], self.gradients[1])]:
            if span[0] - begin >= _PADDING * self.itemsize or not done:
                left.append((begin, span[0]))
            begin = span[1]
        return left

    def fields(self) -> dict[str, Any]:
        """The values of its record."""
        distances = [(begin - self.gradients[0]) // self.itemsize for begin, _ in self.buffers]
        return {
            **self.call.arguments,
            "learning_rates": self.rates[0],
            "momenta": self.momenta[0],
            "steps": (self.rates[1] - self.rates[0]) // 8,
            **dict(zip(("to_parameters", "to_first", "to_second"), distances, strict=False)),
        }


@dataclass(eq=False)
class UpdateLine(Line):
    """A line that only updates: the whole flat buffers, or the parts for some of the gradients.

    Attributes
    ----------
    gradients : Span
    """

    update: Update
    gradients: Span = (0, 0)

    def touched(self) -> list[Span]:
        return [self.gradients, *self.written()]

    def written(self) -> list[Span]:
        return self.update.parts(self.gradients)

    def elsewhere(self) -> list[Span]:
        return []

    def fields(self) -> dict[str, Any]:
        begin, end = self.gradients
        return {"gradients": begin, "size": (end - begin) // self.update.itemsize}
