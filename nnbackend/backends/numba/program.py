"""A recorded step as a table of numbers, for the compiled epoch function to read.

Every call becomes one line: what to do, where its arrays lie in memory, their sizes, and its constants. So the epoch
function is compiled once for all networks: another network is another table.

Threads share the work of a line among themselves: by the rows of the batch, which do not depend on each other, by the
columns of a large layer, or by parts of a gradient. The lines are put into an order in which the threads must meet as
seldom as possible: what others wait for moves up past what can wait, and then whatever stands between two meetings
depends on nothing that another thread does meanwhile. A gradient goes to its parameters where it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.declaration import Call
from nnbackend.backends.numba.lines import Array, Line, UnsupportedStepError, address, lines_of
from nnbackend.backends.numba.operations import BY_COLUMNS, INTEGERS, SETTINGS, address_of
from nnbackend.backends.numba.schedule import deltas_first, fuse_updates, place_waits

__all__ = ["Program", "UnsupportedStepError", "compile_step"]

#: The columns of a line: the address of its function, whether it waits, and from the third on its own numbers.
FUNCTION, WAIT, FIRST = 0, 1, 2

#: A layer is shared out by columns if there are fewer rows than this for each thread and so much to do (multiply-adds)
#: that two more meetings do not matter, and enough columns for each. Found by trying both on two cores.
_WORTH_COLUMNS = [(64, 4_000_000), (96, 30_000_000)]
_MANY_COLUMNS = 48


@dataclass(eq=False)
class Program:
    """The table.

    Attributes
    ----------
    integers : (lines, FIRST + INTEGERS) int64
    settings : (lines, SETTINGS) float64
    operations : list of str
        Names of the lines' functions.
    counter : (3,) int64
    advances : bool
        Whether the step ends by adding 1 to the counter.
    dtype : numpy dtype
    work : int
        Multiply-adds of a step, about.
    arrays : list
        Everything the addresses point to, kept alive.
    """

    integers: npt.NDArray[np.int64]
    settings: npt.NDArray[np.float64]
    operations: list[str]
    counter: npt.NDArray[np.int64]
    advances: bool
    dtype: np.dtype[Any]
    work: int
    arrays: list[Any]


def compile_step(calls: Sequence[Call], threads: int) -> Program:
    """The table of a recorded step, for a number of threads; it runs on any.

    Raises
    ------
    UnsupportedStepError
        It holds a function from outside, or arrays that are not laid out without gaps.
    """
    advances = bool(calls) and calls[-1].operation == "advance"
    counters: list[Array] = [calls[-1].counter] if advances else []
    lines: list[Line] = []
    for call in calls[:-1] if advances else calls:
        lines += lines_of(call, counters)
    _share_columns(lines, threads)
    if not all(array.flags.c_contiguous for line in lines for array in line.arrays()):
        raise UnsupportedStepError("rows of arrays are padded")
    dtypes = {array.dtype for line in lines for array in line.arrays() if array.dtype.kind == "f"}
    if len(dtypes) > 1:
        raise UnsupportedStepError(f"the step mixes {' and '.join(sorted(map(str, dtypes)))}")
    if any(counter is not counters[0] for counter in counters):
        raise UnsupportedStepError("the step has several counters")
    counter = counters[0] if counters else np.zeros(3, np.int64)
    dtype = dtypes.pop() if dtypes else np.dtype(np.float64)

    lines = deltas_first(fuse_updates(lines))
    place_waits(lines)
    integers = np.zeros((len(lines), FIRST + INTEGERS), np.int64)
    settings = np.zeros((len(lines), SETTINGS))
    for place, line in enumerate(lines):
        integers[place, FUNCTION] = address_of(line.operation, dtype, line.rule)
        integers[place, WAIT] = line.wait
        integers[place, FIRST : FIRST + len(line.integers)] = line.integers
        integers[place, FIRST + BY_COLUMNS] = line.share.startswith("columns")
        settings[place, : len(line.settings)] = line.settings
    work = sum(line.work for line in lines)
    arrays = [call.arguments for call in calls]
    return Program(integers, settings, [line.operation for line in lines], counter, advances, dtype, work, arrays)


def _share_columns(lines: Sequence[Line], threads: int) -> None:
    """Share products by columns where that is better, and what goes on with their results in the same way.

    By rows, a thread goes through all layers without meeting the others. By columns, it copies only its part of the
    weights to panels, computes in whole tiles however few rows there are, and finds the weights where it left them.
    """
    shares: dict[int, str] = {}
    for line in lines:
        share = shares.get(address(line.reads[0]), "") if line.follows else ""
        if line.product is not None and threads > 1:
            rows, columns = line.product.shape
            worth = any(rows < few * threads and line.work >= much for few, much in _WORTH_COLUMNS)
            if worth and columns >= _MANY_COLUMNS * threads:
                # Those of as many columns are cut in the same places.
                share = f"columns of {columns}"
        if share.startswith("columns"):
            line.share = share
        shares.update((address(array), line.share) for array in line.writes)
