"""Data-parallel training on several processes and machines: each rank takes a slice of every batch.

The gradients are summed over all ranks. Call ``net.fit(..., communicator=nn.distributed.world())`` in a program started
by ``mpiexec -n 4 python program.py``. On one rank, or without ``mpiexec``, it trains as usual. See docs/scale-out.md.
"""

from __future__ import annotations

from nnbackend.data.batches import Slice, batch_slices, rows_of, shard_slices
from nnbackend.distributed.communicator import Alone, Checks, Communicator
from nnbackend.distributed.launch import launched_ranks, world
from nnbackend.distributed.placement import local_backend

__all__ = [
    "Alone",
    "Checks",
    "Communicator",
    "Slice",
    "batch_slices",
    "launched_ranks",
    "local_backend",
    "rows_of",
    "shard_slices",
    "world",
]


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
