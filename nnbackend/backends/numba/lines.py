"""The lines of a program: each is one call of an operation, with the record that its compiled function reads.

What a line reads, what it writes and what a thread may do on its own follow from the declaration of the operation in
:mod:`nnbackend.backends.operations`. So does its record: an array's address, the extents of its shape and each constant
have the names of the declaration.
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

__all__ = [
    "Addresses", "Array", "Line", "LineKind", "Span", "Split", "UnsupportedStepError", "Update", "UpdateLine",
    "declared_record", "is_cut",
]  # fmt: skip

Array = npt.NDArray[Any]
#: Addresses of the first byte and behind the last.
Span = tuple[int, int]


class UnsupportedStepError(Exception):
    """A step that a program cannot hold; says why."""


@dataclass(frozen=True)
class Split:
    """How the threads share a line's work.

    Two lines are cut in the same places only if both the unit and the count are the same.

    Attributes
    ----------
    unit : {"rows", "positions", "columns", "parts", "none"}
        Rows of the batch, positions of its images, columns of the result, or parts of a result that is no longer the
        batch's. With "none" the first thread does all of it.
    count : int
        How many of these units there are.
    """

    unit: str
    count: int = 1

    @property
    def in_turn(self) -> bool:
        """Whether a thread that has finished its share of one such line may begin its share of the next."""
        return self.unit != "parts"


class Addresses:
    """Addresses of arrays, each asked for once: NumPy takes long to tell one, and many lines use the same array.

    The arrays must live as long as this.
    """

    def __init__(self) -> None:
        self._known: dict[int, Span] = {}

    def span(self, array: Array) -> Span:
        """The addresses of its first byte and behind its last."""
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
    """A compiled function, and the calls that it is for.

    Attributes
    ----------
    name : str
        Of the function.
    operations : tuple of str
        The operations of the contract that it computes.
    record : Record
        What it reads.
    make : callable
        Makes the function that Numba compiles.
    accepts : callable
        Whether it can compute a call of its operation.
    values : dict of callable
        Fields of the record that are not in the declaration, from the call.
    work : callable
        From the call: multiply-adds, or what takes as long.
    follows : str
        If the array of this name was written by columns, this line is split by columns as well.
    is_product : bool
        Whether it is a matrix product, which may be split by columns where that is faster.
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

    @property
    def updates(self) -> bool:
        """Whether the line may end with an update."""
        return "update" in dict(self.record.fields)

    @property
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
        Its arrays by name, except for the counter: the epoch function alone reads and writes that.
    update : Update, optional
        That of the parameters whose gradient it has.
    wait : bool
        Whether the threads meet before it.
    """

    kind: LineKind
    call: Call
    split: Split
    spans: Mapping[str, Span]
    update: Update | None = None
    wait: bool = False

    @property
    def late(self) -> bool:
        """Whether no activation or gradient of an activation depends on it, so that it can wait."""
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
        """All that it reads or writes."""
        return [*self.spans.values(), *self._updated()]

    def written(self) -> list[Span]:
        """All that it writes, its result first."""
        spans = self.spans
        return [*(spans[name] for name in uses_of(self.call.operation).written if name in spans), *self._updated()]

    def elsewhere(self) -> list[Span]:
        """What a thread reads beyond its own share."""
        names = uses_of(self.call.operation).elsewhere.get(self.split.unit, ())
        return [self.spans[name] for name in names if name in self.spans]

    def fields(self) -> dict[str, Any]:
        """The values of its record, but for the update's."""
        call, spans = self.call, self.spans
        shapes = uses_of(call.operation).shapes
        values: dict[str, Any] = {"by_columns": self.split.unit == "columns"}
        for name, value in call.arguments.items():
            if name in spans:
                values[name] = spans[name][0]
                values.update(zip(shapes[name].get(value.ndim, ()), value.shape, strict=False))
            elif name not in shapes:
                values[name] = ACTIVATION_CODES[value] if isinstance(value, str) else value
        for name, make in self.kind.values.items():
            values[name] = make(call)
        return values

    def _updated(self) -> list[Span]:
        return [] if self.update is None else self.update.parts(self.result)


@dataclass(frozen=True)
class Uses:
    """What the declaration of an operation says about its arguments.

    Attributes
    ----------
    arrays, written, real : tuple of str
        Its arrays, those that it writes, and those of type "real"; the counter is not one of them.
    shapes : dict
        By array and number of axes: the names of the extents.
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
    """By number of axes: the fields for an array's extents. A shape of any number of axes has none."""
    return {
        len(shape): tuple(_field(operation, extent) for extent in shape)
        for shape in argument.shapes
        if not any(_is_open(extent) for extent in shape)
    }


def _is_open(extent: str | int) -> bool:
    """Whether it stands for any number of extents."""
    return isinstance(extent, str) and extent.startswith("*")


def _field(operation: str, extent: str | int) -> str:
    """The field for an extent: its name, unless that is an argument's."""
    return f"{extent}_count" if extent in OPERATIONS[operation].arguments else str(extent)


def is_cut(operation: str, argument: Argument, unit: str) -> bool:
    """Whether a thread that has a share of the rows or columns uses only the same share of an argument.

    Rows are the first extent of the first array that the operation writes, and columns its last. The columns of
    another array are cut in the same places only if they, too, are its last extent.
    """
    declared = OPERATIONS[operation]
    result = declared.arguments[declared.written[0]].shapes[0]
    if unit == "columns":
        return all(shape[-1] == result[-1] for shape in argument.shapes)
    return all(result[0] in shape for shape in argument.shapes)


def declared_record(operation: str, *more: tuple[str, str]) -> Record:
    """The record of an operation, from its declaration: addresses, extents and constants by name.

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
    """An optimiser's step for the flat buffers, which may be taken apart.

    Attributes
    ----------
    call : Call
    rule : int
        Of `updates.py`.
    gradients : Span
    buffers : list of Span
        The parameters and the slots.
    rates : Span
    itemsize : int
        Bytes of an element.
    """

    call: Call
    rule: int
    gradients: Span
    buffers: list[Span]
    rates: Span
    itemsize: int

    @classmethod
    def of(cls, call: Call, spans: Mapping[str, Span]) -> Update:
        """The update that a call of an optimiser's operation asks for."""
        buffers = [spans[name] for name in uses_of(call.operation).written if name in spans]
        return cls(call, rule_of(call), spans["gradients"], buffers, spans["learning_rates"], call.gradients.itemsize)

    def covers(self, gradient: Span) -> bool:
        """Whether a span is part of the gradients."""
        return self.gradients[0] <= gradient[0] and gradient[1] <= self.gradients[1]

    def parts(self, gradient: Span) -> list[Span]:
        """The parts of the parameters and of the slots that belong to a part of the gradients."""
        begin, end = (edge - self.gradients[0] for edge in gradient)
        return [(buffer + begin, buffer + end) for buffer, _ in self.buffers]

    def without(self, done: Iterable[Span]) -> list[Span]:
        """The gradients that are left, except for the padding between parameters, where everything is 0."""
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
            "steps": (self.rates[1] - self.rates[0]) // 8,
            **dict(zip(("to_parameters", "to_first", "to_second"), distances, strict=False)),
        }


@dataclass(eq=False)
class UpdateLine(Line):
    """A line that only updates: the whole flat buffers, or the parts that belong to some of the gradients.

    Attributes
    ----------
    gradients : Span
    """

    gradients: Span = (0, 0)

    def touched(self) -> list[Span]:
        return [self.gradients, *self.written()]

    def written(self) -> list[Span]:
        assert self.update is not None
        return self.update.parts(self.gradients)

    def elsewhere(self) -> list[Span]:
        return []

    def fields(self) -> dict[str, Any]:
        assert self.update is not None
        begin, end = self.gradients
        return {"gradients": begin, "size": (end - begin) // self.update.itemsize}
