"""The function with which a thread takes chunks of rows through all lines of a step; see `row_chunks.py`."""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np
from numba import types

from nnbackend.backends.numba.epoch import STATE_SIZE, THREAD, THREADS
from nnbackend.backends.numba.intrinsics import atomic_add, call, flush_subnormals
from nnbackend.backends.numba.jit import as_written, callback_of, compiled
from nnbackend.backends.numba.kinds import STATE
from nnbackend.backends.numba.memory import counts, matrix, vector
from nnbackend.backends.numba.prediction import copy_finite, is_finite, point_to
from nnbackend.backends.numba.program import FUNCTION, RECORD
from nnbackend.backends.numba.records import INTEGER, REAL, Record, at

__all__ = [
    "AS_THEY_ARE",
    "BYTES",
    "CHUNKS",
    "OTHER",
    "OVERFLOW",
    "PLACE",
    "SCALED",
    "SUSPECT_ROWS",
    "chunk_loop",
    "pack_call",
]

#: How the rows become inputs: as they are, scaled, or converted from bytes or from the other real type and scaled.
AS_THEY_ARE, SCALED, BYTES, OTHER = range(4)

#: Flags of a call: the rows may hold NaN or infinity, and the results do.
SUSPECT_ROWS, OVERFLOW = range(2)

#: What a call changes comes first, in the order of `pack_call`: the number of the next chunk, and how many there are;
#: rows of a chunk, and of the call; how to convert them, their address and the bytes of a row; the address of the
#: results; and the scale.
CHUNKS = Record.of(
    "chunks", next=INTEGER, number=INTEGER, size=INTEGER, rows=INTEGER, kind=INTEGER, source=INTEGER,
    source_row=INTEGER, results=INTEGER, scale=REAL, places=INTEGER, slices=INTEGER, lines=INTEGER, features=INTEGER,
    outputs=INTEGER, flags=INTEGER, look=INTEGER,
)  # fmt: skip
pack_call = struct.Struct("=8qd").pack_into

#: What belongs to a thread: its table, the words that are addresses of inputs and of outputs, and its parts of the
#: buffers of inputs and of outputs.
PLACE = Record.of(
    "place", table=INTEGER, input_words=INTEGER, input_count=INTEGER, output_words=INTEGER, output_count=INTEGER,
    buffer=INTEGER, output_buffer=INTEGER,
)  # fmt: skip


@as_written
def place_call(record, rows, results):
    """Write the words of a record `CHUNKS` that are different in each call: where the first chunk, the rows and the
    results are."""
    record[0], record[5], record[7] = 0, rows.ctypes.data, results.ctypes.data


def _make(real, other, size):
    """The function that a thread runs; see `kinds.py` for its arguments."""
    largest = real(np.finfo(real).max)

    def chunk_loop(address, state, scratch):
        line = at(CHUNKS, address)
        thread, rows, features = at(STATE, state).thread, line.size, line.features
        place = at(PLACE, line.places + PLACE_SIZE * thread)
        table = matrix(place.table, line.lines, 3, np.int64)
        inputs, outputs = (
            matrix(place.input_words, place.input_count, 2, np.int64),
            matrix(place.output_words, place.output_count, 2, np.int64),
        )
        flags, next_chunk = counts(line.flags, 2), address + NEXT
        # A thread is always at its own part of the buffers, however many there are.
        own, given = np.empty(STATE_SIZE, np.int64), counts(state, STATE_SIZE)
        for number in range(STATE_SIZE):
            own[number] = given[number]
        own[THREAD], own[THREADS] = thread, line.slices
        chunk = atomic_add(next_chunk, 1)
        while chunk < line.number:
            # The last chunk begins earlier, so that it is complete.
            first = min(chunk * rows, line.rows - rows)
            source, results = line.source + first * line.source_row, line.results + first * line.outputs * size
            shared = (chunk * rows - first) * line.outputs
            # Another thread may be at the rows that it shares with the chunk before, whose results several lines write.
            written = place.output_buffer if shared > 0 else results
            if line.kind != AS_THEY_ARE:
                converted, scale = vector(place.buffer, rows * features, real), real(line.scale)
                flush_subnormals(False)
                if line.kind == SCALED:
                    sound = copy_finite(vector(source, rows * features, real), scale, largest, converted)
                elif line.kind == BYTES:
                    sound = copy_finite(vector(source, rows * features, np.uint8), scale, largest, converted)
                else:
                    sound = copy_finite(vector(source, rows * features, other), scale, largest, converted)
                flush_subnormals(True)
                if not sound:
                    flags[SUSPECT_ROWS] = 1
                source = place.buffer
            elif line.look and not is_finite(vector(source, rows * features, real), largest):
                flags[SUSPECT_ROWS] = 1
            point_to(inputs, source - thread * rows * features * size)
            point_to(outputs, written - thread * rows * line.outputs * size)
            for number in range(len(table)):
                call(table[number, FUNCTION], table[number, RECORD], own.ctypes.data, scratch)
            found = vector(written, rows * line.outputs, real)
            if not is_finite(found, largest):
                flags[OVERFLOW] = 1
            if shared > 0:
                # One by one, because for an assignment to a slice Numba spends seconds compiling an error message.
                given_back = vector(results, rows * line.outputs, real)
                for number in range(shared, found.size):
                    given_back[number] = found[number]
            chunk = atomic_add(next_chunk, 1)

    return chunk_loop


PLACE_SIZE, NEXT = PLACE.size, CHUNKS.offset("next")


@functools.cache
def chunk_loop(dtype: np.dtype[Any]) -> Any:
    """The compiled function for a type."""
    real, other = (np.float32, np.float64) if dtype == np.float32 else (np.float64, np.float32)
    function = _make(real, other, dtype.itemsize)
    # The name distinguishes the files on disk.
    function.__qualname__ = f"chunk_loop[{dtype}]"
    return compiled(callback_of(function, types.void(*[types.intp] * 3)))
