"""A step for any number of rows: threads take small chunks of them, one after the other, through all of its lines.

A chunk is so small that its activations stay in the cache of a core. The first product reads the rows where they are,
or after they were converted into the buffer of the thread, and the last lines write to the caller's results. Each
thread has a copy of the step's records and its own part of the step's buffers, so there are no barriers, and a thread
that comes late finds fewer chunks left. The result of a row does not depend on its chunk. The last chunk shares rows
with the one before; it is computed in the buffer of the thread, and only its other rows are copied to the results.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backends.arrays import HostArray, span_of
from nnbackend.backends.executor import INFINITE, SUSPECT
from nnbackend.backends.numba.chunk_loop import (
    AS_THEY_ARE,
    BYTES,
    CHUNKS,
    OTHER,
    OVERFLOW,
    PLACE,
    SCALED,
    SUSPECT_ROWS,
    chunk_loop,
    pack_call,
    place_call,
)
from nnbackend.backends.numba.lines import Array
from nnbackend.backends.numba.program import Program
from nnbackend.backends.numba.tile_shape import shape_for

__all__ = ["RowChunks"]


class RowChunks:
    """A step as a call for any number of rows.

    Parameters
    ----------
    program : Program
        With `by_rows` rows, for which `fits` is true.
    x, outputs : (rows, ...) arrays
        The buffers of the step's input and of its results.
    slices : int
        Number of equal parts of these rows, each for a thread.
    flags : (2,) int64
        The first is set to 1 if the rows of a call may hold NaN or infinity, the second if its results do.
    checks : bool
        Whether the step sets the first itself.

    Attributes
    ----------
    program : Program
        Of a single line, which threads share.
    work : int
        Multiply-adds of a row.
    """

    def __init__(self, program: Program, x: Array, outputs: Array, slices: int, flags: Array, checks: bool) -> None:
        self._flags, self._dtype, self._slices = flags, x.dtype, slices
        #: The number and dtype of the last rows, and their factor.
        self._last: tuple[Any, ...] = ()
        self._height = shape_for(x.dtype).rows
        self._most = len(x) // slices // self._height * self._height
        #: Multiply-adds of a row.
        self.work = max(1, program.work // len(x))
        self._records = [program.records.copy() for _ in range(slices)]
        self._size = 0
        tables = [records.table for records in self._records]
        words = [[records.words_of(_span(array)) for array in (x, outputs)] for records in self._records]
        places = np.zeros((slices, len(PLACE.fields)), np.int64)
        for number, (table, (inputs, results)) in enumerate(zip(tables, words, strict=True)):
            values = {
                "table": table.ctypes.data, "input_words": inputs.ctypes.data, "input_count": len(inputs),
                "output_words": results.ctypes.data, "output_count": len(results),
                "buffer": x.ctypes.data + number * self._most * x.shape[1] * x.itemsize,
                "output_buffer": outputs.ctypes.data + number * self._most * (outputs.nbytes // len(outputs)),
            }  # fmt: skip
            PLACE.pack(places.view(np.uint8).reshape(-1), number * PLACE.size, values)
        self._record = np.zeros(len(CHUNKS.fields), np.int64)
        values = {
            "places": places.ctypes.data, "slices": slices, "lines": len(tables[0]), "features": x.shape[1],
            "outputs": outputs.size // len(outputs), "flags": flags.ctypes.data,
            "look": not checks,
        }  # fmt: skip
        CHUNKS.pack(self._record.view(np.uint8), 0, values)
        table = np.array([(chunk_loop(x.dtype).address, 0, self._record.ctypes.data)], np.int64)
        kept = [program, x, outputs, tables, words, places]
        self.program = Program(table, ["chunk_loop"], program.counter, False, 0, program.scratch, program.records, kept)

    @staticmethod
    def fits(program: Program, x: Array, outputs: Array) -> bool:
        """Whether the step can be run in chunks of rows: all lines work row by row, and none writes its input."""
        if program.records.by_rows != len(x):
            return False
        inputs, results = _span(x), _span(outputs)
        return program.records.keeps_apart(inputs, written=False) and program.records.keeps_apart(results)

    def prepare(self, rows: HostArray, scale: Any, results: HostArray) -> None:
        """Write the arguments of a call: C-contiguous (n, features) rows of uint8 or a real type, and results."""
        count = len(rows)
        if (count, rows.dtype, scale) == self._last:
            place_call(self._record, rows, results)
            return
        number = -(-count // self._most)
        if self._slices > 1:
            # As many for each thread, but no chunk of less than a tile.
            number = min(-(-number // self._slices) * self._slices, -(-count // self._height))
        size = min(count, -(-count // (number * self._height)) * self._height)
        if size != self._size:
            self._size = size
            for records in self._records:
                records.set_rows(size * self._slices)
        self.program.work = self.work * count
        kind, row = self._kind(rows.dtype, scale), rows.strides[0]
        pack_call(self._record.data, 0, 0, -(-count // size), size, count, kind, 0, row, 0, scale)
        place_call(self._record, rows, results)
        self._last = count, rows.dtype, scale

    def found(self) -> int:
        """The flags of the last call; see :data:`nnbackend.backends.executor.RunRows`."""
        flag = 0
        if self._flags[SUSPECT_ROWS]:
            flag, self._flags[SUSPECT_ROWS] = SUSPECT, 0
        if self._flags[OVERFLOW]:
            flag, self._flags[OVERFLOW] = flag | INFINITE, 0
        return flag

    def _kind(self, dtype: np.dtype[Any], scale: Any) -> int:
        if dtype == self._dtype:
            return AS_THEY_ARE if scale == 1 else SCALED
        return BYTES if dtype == np.uint8 else OTHER


def _span(array: Array) -> tuple[int, int]:
    span = span_of(array)
    assert span is not None
    return span
