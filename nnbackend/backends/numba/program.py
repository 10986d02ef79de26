"""A recorded step as a table that the compiled epoch function reads.

Each call becomes one line: the address of a compiled function, and a record with the addresses and shapes of its arrays
and its constants. The epoch function is therefore compiled once for all networks: another network is another table.

Threads share the work of a line: by rows of the batch, which do not depend on each other, by columns of a large layer,
or by parts of a gradient. The lines are put in an order in which threads rarely wait for each other: lines that others
depend on are moved earlier, and the lines between two barriers do not depend on what other threads compute there.
Gradients are applied to the parameters right after they are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.arrays import span_of
from nnbackend.backends.declaration import OPERATIONS, Call
from nnbackend.backends.numba.compiled import kind_of
from nnbackend.backends.numba.input_copies import copy_inputs
from nnbackend.backends.numba.kinds import SCRATCH
from nnbackend.backends.numba.line_records import FUNCTION, RECORD, WAIT, Records
from nnbackend.backends.numba.lines import (
    Addresses,
    Array,
    Line,
    LineKind,
    Span,
    Split,
    UnsupportedStepError,
    Update,
    UpdateLine,
)
from nnbackend.backends.numba.schedule import schedule

__all__ = [
    "FUNCTION", "RECORD", "WAIT", "Parts", "Program", "UnsupportedStepError", "compile_step", "lines_of_step",
    "parts_of",
]  # fmt: skip

#: A layer is split by columns if there are fewer rows per thread than this, enough work (multiply-adds) to outweigh two
#: more barriers, and enough columns per thread. Measured on two cores.
_WORTH_COLUMNS = [(64, 4_000_000), (96, 30_000_000)]
_MANY_COLUMNS = 48

#: In a step that waiting threads share: rows up to which products are split by columns, since weights take longer to
#: read than to multiply with, and the weights for which that outweighs the barriers.
_FEW_ROWS, _MANY_WEIGHTS = 12, 50_000


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
    scratch : int
        Bytes of temporary memory for each thread.
    records : Records
        What the table points to.
    arrays : list
        The arrays whose addresses are used, to keep them alive.
    """

    table: npt.NDArray[np.int64]
    operations: list[str]
    counter: npt.NDArray[np.int64]
    advances: bool
    work: int
    scratch: int
    records: Records
    arrays: list[Any]
    exchanged: Sequence[Array] = ()

    def exchange(self, arrays: Sequence[tuple[Array, Array]], seed: int) -> None:
        """Use other arrays and another seed from now on; see :meth:`nnbackend.backends.executor.Executor.exchange`."""
        known = Addresses()
        self.records.move([(known.span(old), known.span(new)[0]) for old, new in arrays])
        self.records.set_seed(seed)
        self.exchanged = [new for _, new in arrays]


#: The calls that a call becomes, each with its compiled function, or the reason why it cannot be compiled.
Parts = list[tuple[Call, LineKind]] | str


def parts_of(call: Call) -> Parts:
    """What a call becomes in a program, or why it cannot be part of one."""
    if call.function is not None:
        return str(call.outside)
    if call.operation == "advance":
        return []
    if not all(array.flags.c_contiguous for array in _arrays(call)):
        return "rows of arrays are padded"
    parts = []
    for each in _simple(call):
        kind = kind_of(each)
        if kind is None:
            return f"{call.operation} has no compiled function for these arrays"
        parts.append((each, kind))
    return parts


def compile_step(
    calls: Sequence[Call],
    threads: int,
    needed: Sequence[Array] = (),
    parts: Callable[[Call], Parts] = parts_of,
    few_rows: bool = False,
    elsewhere: Sequence[Array] = (),
) -> Program:
    """Make the table of a recorded step, optimised for a number of threads; it runs on any number.

    Parameters
    ----------
    calls : sequence of Call
    threads : int
    needed : sequence of arrays
        Arrays used by segments of the step that Python runs; gradients in them are stored.
    parts : callable
        Returns what `parts_of` returns, for callers that have the parts already.
    few_rows : bool
        Whether threads that are waiting for it share the step, so that they should share also little work.
    elsewhere : sequence of arrays
        Arrays used by any other segment of the step; a batch in them is not copied for each thread.

    Raises
    ------
    UnsupportedStepError
        A call has no compiled function, or the calls use several counters.
    """
    counters = {id(call.counter): call.counter for call in calls if "counter" in call.arguments}
    if len(counters) > 1:
        raise UnsupportedStepError("the step has several counters")
    spans = [span for array in needed if (span := span_of(array)) is not None]
    lines, advances = lines_of_step(calls, threads, spans, parts, few_rows)
    copies = copy_inputs(lines, threads, [span for array in elsewhere if (span := span_of(array)) is not None])
    records = Records(lines)
    return Program(
        records.table,
        [line.kind.name for line in lines],
        next(iter(counters.values())) if counters else np.zeros(3, np.int64),
        advances,
        sum(line.kind.work(line.call) for line in lines),
        SCRATCH + max((line.kind.scratch(line.call) for line in lines), default=0),
        records,
        [*(call.arguments for call in calls), *copies],
    )


def lines_of_step(
    calls: Sequence[Call],
    threads: int,
    needed: Sequence[Span] = (),
    parts: Callable[[Call], Parts] = parts_of,
    few_rows: bool = False,
) -> tuple[list[Line], bool]:
    """The lines of a step in the order in which they run, and whether it ends by adding 1 to the counter; the
    parameters are those of `compile_step`, but with the memory of `needed`."""
    advances = bool(calls) and calls[-1].operation == "advance"
    addresses = Addresses()
    lines = [line for call in (calls[:-1] if advances else calls) for line in lines_of(call, parts(call), addresses)]
    _split_columns(lines, threads, few_rows)
    return schedule(lines, needed), advances


def lines_of(call: Call, parts: Parts, addresses: Addresses) -> Iterator[Line]:
    if isinstance(parts, str):
        raise UnsupportedStepError(parts)
    if not parts:
        raise UnsupportedStepError(f"{call.operation} is not the last call of the step")
    for each, kind in parts:
        spans = addresses.of(each)
        if OPERATIONS[each.operation].role == "update":
            update = Update.of(each, spans)
            yield UpdateLine(kind, each, _split(each), spans, update, gradients=update.gradients)
        else:
            yield Line(kind, each, _split(each), spans)


def _simple(call: Call) -> list[Call]:
    """The call as calls with compiled functions: an activation after a product becomes a separate call."""
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
    """By rows if the declaration allows it, otherwise by parts of the result, otherwise not at all."""
    result = next(call.written())
    units = OPERATIONS[call.operation].splits
    if "rows" in units:
        return Split("rows", result.shape[0])
    return Split("parts", result.size) if "parts" in units else Split("none")


def _split_columns(lines: Sequence[Line], threads: int, few_rows: bool = False) -> None:
    """Split products by columns where that is faster, and also the lines that use their results.

    With a split by rows, a thread computes all layers without waiting for others. With a split by columns, it packs
    only its part of the weights, computes whole tiles even if there are few rows, and finds the weights in its own
    cache.
    """
    if threads == 1:
        return
    #: Start addresses of arrays that were written by columns.
    by_columns: set[int] = set()
    for line in lines:
        kind, result = line.kind, next(line.call.written())
        follows = bool(kind.follows) and line.spans[kind.follows][0] in by_columns
        if kind.is_product:
            rows, columns = result.shape
            work = kind.work(line.call)
            if few_rows:
                worth = rows <= _FEW_ROWS and work >= rows * _MANY_WEIGHTS
            else:
                worth = any(rows < few * threads and work >= much for few, much in _WORTH_COLUMNS)
            follows = worth and columns >= _MANY_COLUMNS * threads
        begins = {begin for begin, _ in line.written()}
        if follows:
            line.split = Split("columns", result.shape[-1])
            by_columns |= begins
        else:
            by_columns -= begins
