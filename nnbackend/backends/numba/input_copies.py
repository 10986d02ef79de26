"""Copies of a batch for each thread, so that cores do not exchange it.

Threads share the forward pass by rows of the batch, and the gradient of the first weight by columns. With one buffer,
each would read part of what another has written, and overwrite in the next step what another has read; where cores do
not share a cache, that takes longer than gathering twice. So each thread gathers into a buffer of its own all columns
of its rows, and of the other rows the columns that its part of the gradient needs. A layer that is divided by columns
would need all columns of all rows, which does not pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from nnbackend.backends.arrays import overlap
from nnbackend.backends.declaration import Call
from nnbackend.backends.numba.lines import Array, Line, Span

__all__ = ["copy_inputs"]

#: The most threads, and bytes of all buffers. Measured on two cores.
_THREADS, _BYTES = 4, 32 << 20

#: Kinds of lines that gather, and of those that know about the copies.
_GATHERS, _READERS = ("gather_bytes", "gather_rows"), ("dense", "weight_gradient")


def copy_inputs(lines: Sequence[Line], threads: int, elsewhere: Sequence[Span]) -> list[Array]:
    """Let each thread have its own copy of the batch, if only products read it; returns the memory, to keep it alive.

    Parameters
    ----------
    lines : sequence of Line
        As scheduled for this number of threads.
    threads : int
    elsewhere : sequence of Span
        Memory that other segments of the step use, compiled or not.
    """
    if not 1 < threads <= _THREADS:
        return []
    memory = []
    for line in lines:
        if line.kind.name in _GATHERS:
            readers = [other for other in lines if other is not line and _touches(other, line.result)]
            size = -(-line.call.out.nbytes // 64) * 64
            if size * threads <= _BYTES and _pays(line, readers) and not _within(line.result, elsewhere):
                memory.append(_give(line, readers, threads, size))
    return memory


def _touches(line: Line, span: Span) -> bool:
    return any(overlap(span, other) for other in line.touched())


def _within(span: Span, elsewhere: Sequence[Span]) -> bool:
    return any(overlap(span, other) for other in elsewhere)


def _pays(gather: Line, readers: Sequence[Line]) -> bool:
    """Whether there is a gradient, and all lines know about the copies and share them as the gather does."""
    return all(map(partial(_knows, gather), readers)) and any(line.kind.name == "weight_gradient" for line in readers)


def _knows(gather: Line, reader: Line) -> bool:
    if reader.kind.name not in _READERS or reader.split.unit == "columns":
        return False
    # A layer may read the batch as a matrix with more rows, of which a thread's share is other memory.
    return reader.spans["x"] == gather.result and reader.call.x.shape == gather.call.out.shape


def _give(gather: Line, readers: Sequence[Line], threads: int, size: int) -> Array:
    memory = np.empty(threads * size, np.uint8)
    span = memory.ctypes.data, memory.ctypes.data + len(memory)
    for line, name in ((gather, "out"), *((reader, "x") for reader in readers)):
        line.spans = {**line.spans, name: span}
        line.call = Call(line.call.operation, {**line.call.arguments, "copies": size})
    return memory
