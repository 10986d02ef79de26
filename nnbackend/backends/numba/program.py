"""A recorded step as a table that the compiled epoch function reads.

Each call becomes one line: the address of a compiled function, and a record of where its arrays lie, their shapes and
its constants. The epoch function is therefore compiled once for all networks: another network is another table.

Threads share the work of a line: by rows of the batch, which do not depend on each other, by columns of a large layer,
or by parts of a gradient. The lines are put in an order in which threads rarely wait for each other: lines that others
depend on are moved earlier, and the lines between two waits depend on nothing that another thread computes there.
Gradients are applied to the parameters where they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.declaration import OPERATIONS, Call, span_of
from nnbackend.backends.numba.compiled import address_of, kind_of, product_for
from nnbackend.backends.numba.lines import (
    Addresses,
    Array,
    Line,
    Split,
    UnsupportedStepError,
    Update,
    UpdateLine,
)
from nnbackend.backends.numba.schedule import schedule
from nnbackend.backends.numba.updates import UPDATE

__all__ = ["Program", "UnsupportedStepError", "compile_step", "refusal"]

#: The columns of the table: the address of a line's function, whether the threads meet first, and its record's address.
FUNCTION, WAIT, RECORD = 0, 1, 2

#: A layer is split by columns if there are fewer rows than this for each thread and enough work (multiply-adds) that
#: two more waits do not matter, and enough columns for each. Both were measured on two cores.
_WORTH_COLUMNS = [(64, 4_000_000), (96, 30_000_000)]
_MANY_COLUMNS = 48


@dataclass(eq=False)
class Program:
    """The table.

    Attributes
    ----------
    table : (lines, 3) int64
    operations : list of str
        Names of the lines' functions.
    counter : (3,) int64
    advances : bool
        Whether the step ends by adding 1 to the counter.
    work : int
        Multiply-adds of a step, approximately.
    arrays : list
        Everything that the addresses point to, kept alive.
    """

    table: npt.NDArray[np.int64]
    operations: list[str]
    counter: npt.NDArray[np.int64]
    advances: bool
    work: int
    arrays: list[Any]


def compile_step(calls: Sequence[Call], threads: int, needed: Sequence[Array] = ()) -> Program:
    """The table of a recorded step, made for a number of threads; it runs on any.

    Parameters
    ----------
    calls : sequence of Call
    threads : int
    needed : sequence of arrays
        Used by other segments of the step: gradients in them are stored.

    Raises
    ------
    UnsupportedStepError
        A call has no compiled function, or the calls have several counters.
    """
    advances = bool(calls) and calls[-1].operation == "advance"
    addresses = Addresses()
    lines = [line for call in (calls[:-1] if advances else calls) for line in lines_of(call, addresses)]
    counters = {id(call.counter): call.counter for call in calls if "counter" in call.arguments}
    if len(counters) > 1:
        raise UnsupportedStepError("the step has several counters")
    _split_columns(lines, threads)
    lines = schedule(lines, [span for array in needed if (span := span_of(array)) is not None])
    table, records = _written(lines)
    return Program(
        table,
        [line.kind.name for line in lines],
        next(iter(counters.values())) if counters else np.zeros(3, np.int64),
        advances,
        sum(line.kind.work(line.call) for line in lines),
        [records, [call.arguments for call in calls]],
    )


def refusal(call: Call) -> str | None:
    """Why a call cannot be a line; None if it can."""
    if call.operation == "advance":
        return None
    if call.function is not None:
        return call.outside
    if any(kind_of(each) is None for each in _simple(call)):
        return f"{call.operation} has no compiled function for these arrays"
    if not all(array.flags.c_contiguous for array in _arrays(call)):
        return "rows of arrays are padded"
    return None


def lines_of(call: Call, addresses: Addresses) -> Iterator[Line]:
    """The lines that a call becomes.

    Raises
    ------
    UnsupportedStepError
    """
    reason = refusal(call)
    if reason is not None:
        raise UnsupportedStepError(reason)
    for each in _simple(call):
        kind = kind_of(each)
        if kind is None:
            raise UnsupportedStepError(f"{each.operation} is not the last call of the step")
        spans = addresses.of(each)
        if OPERATIONS[each.operation].role == "update":
            update = Update.of(each, spans)
            yield UpdateLine(kind, each, _split(each), spans, update, gradients=update.gradients)
        else:
            yield Line(kind, each, _split(each), spans)


def _simple(call: Call) -> list[Call]:
    """The call as those that have compiled functions: an activation after a product is one of its own."""
    if call.operation != "dense_forward":
        return [call]
    z = call.out if call.preactivation is None else call.preactivation
    if call.activation == "identity" and z is call.out:
        return [call]
    product = {**call.arguments, "activation": "identity", "preactivation": None, "out": z}
    activation = {"z": z, "activation": call.activation, "alpha": call.alpha, "out": call.out}
    return [Call("dense_forward", product), Call("activation_forward", activation)]


def _arrays(call: Call) -> Iterator[Array]:
    names = OPERATIONS[call.operation].arrays
    return (call.arguments[name] for name in names if call.arguments.get(name) is not None)


def _split(call: Call) -> Split:
    """By rows where the declaration allows it, otherwise by parts of the result, otherwise not at all."""
    result = next(call.written())
    units = OPERATIONS[call.operation].splits
    if "rows" in units:
        return Split("rows", result.shape[0])
    return Split("parts", result.size) if "parts" in units else Split("none")


def _split_columns(lines: Sequence[Line], threads: int) -> None:
    """Split products by columns where that is faster, and then the lines that continue with their results.

    By rows, a thread goes through all layers without waiting for others. By columns, it copies only its part of the
    weights to panels, computes whole tiles even if there are few rows, and finds the weights in its own cache.
    """
    if threads == 1:
        return
    #: Where arrays begin that were written by columns.
    by_columns: set[int] = set()
    for line in lines:
        kind, result = line.kind, next(line.call.written())
        follows = bool(kind.follows) and line.spans[kind.follows][0] in by_columns
        if kind.is_product:
            rows, columns = result.shape
            work = kind.work(line.call)
            worth = any(rows < few * threads and work >= much for few, much in _WORTH_COLUMNS)
            follows = worth and columns >= _MANY_COLUMNS * threads
        begins = {begin for begin, _ in line.written()}
        if follows:
            line.split = Split("columns", result.shape[-1])
            by_columns |= begins
        else:
            by_columns -= begins


def _written(lines: Sequence[Line]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """The table, and the memory of the records that it has the addresses of."""
    sizes = [line.kind.record.size + (UPDATE.size if line.update is not None else 0) for line in lines]
    records = np.zeros(sum(sizes), np.uint8)
    begin, place = records.ctypes.data, 0
    table = np.zeros((len(lines), 3), np.int64)
    for number, (line, size) in enumerate(zip(lines, sizes, strict=True)):
        values, rule = line.fields(), None
        if line.update is not None:
            rule = line.update.rule
            after = place + line.kind.record.size
            values["update"] = begin + after
            UPDATE.pack(records, after, line.update.fields())
        if line.kind.calls_product:
            values["product"] = product_for(line.dtype, rule)
            values["partial_product"] = product_for(line.dtype) if rule is not None else 0
        line.kind.record.pack(records, place, values)
        table[number] = address_of(line.kind.name, line.dtype, rule), line.wait, begin + place
        place += size
    return table, records
