"""The memory bandwidth: reads and writes as many bytes as a step must move at least, with almost no arithmetic."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.data import Weights
from benchmarks.peers.works import Work

__all__ = ["Bandwidth", "blocks_for", "stream"]

#: Total bytes of all threads' arrays. McCalpin (1995), "Memory bandwidth and machine balance", recommends four times
#: the size of the last-level cache, so that data are evicted before they are used again.
_ARRAYS_BYTES = 512 << 20

#: Numbers per block, so that the loop over blocks has negligible cost.
_BLOCK = 16_384
#: Each number is read and written.
_BLOCK_BYTES = 2 * 4 * _BLOCK


@njit("void(float32[::1], intp, intp)", nogil=True)
def stream(array: NDArray[np.float32], first: int, blocks: int) -> None:
    """Read and write `blocks` blocks cyclically, starting at `first`.

    In place, like an update, so that no cache line is fetched only to be overwritten; it would be unclear whether that
    counts as traffic.
    """
    count = array.size // _BLOCK
    for block in range(first, first + blocks):
        begin = block % count * _BLOCK
        for i in range(begin, begin + _BLOCK):
            array[i] = array[i] * np.float32(0.5) + np.float32(0.25)


def blocks_for(moved: float, threads: int) -> int:
    """Blocks per thread for a total number of bytes."""
    return max(1, round(moved / (_BLOCK_BYTES * threads)))


class _Run(Training):
    def __init__(self, work: Work, arrays: list[NDArray[np.float32]]) -> None:
        self._work, self._arrays = work, arrays
        self._pool = ThreadPoolExecutor(len(arrays))
        self._place = 0

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        return []

    def shuffle(self) -> None:
        """There is nothing to shuffle."""

    def run(self, steps: int) -> None:
        blocks = blocks_for(steps * self._work.bytes, len(self._arrays))

        def share(array: NDArray[np.float32]) -> Any:
            return stream(array, self._place, blocks)

        list(self._pool.map(share, self._arrays))
        # Continue at the end of this run, because the data used last are still in a cache.
        self._place += blocks


class Bandwidth(Contender):
    """Takes part in the rounds like `Peak`, so that it is measured in the same period as the libraries."""

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        """Allocate memory and write to it once; no images are needed."""
        size = _ARRAYS_BYTES // 4 // self.threads
        self._arrays = [np.full(size, 0.5, np.float32) for _ in range(self.threads)]

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(work, self._arrays)
