"""How fast memory is: as many bytes as a step has to move at least, read and written with next to nothing computed."""

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

#: Bytes of all threads' arrays together. McCalpin (1995), "Memory bandwidth and machine balance", asks for four times
#: the last cache; what comes round again has then been pushed out of it.
_ARRAYS_BYTES = 512 << 20

#: Numbers of a block, so that counting the blocks costs nothing.
_BLOCK = 16_384
#: Each is read and written.
_BLOCK_BYTES = 2 * 4 * _BLOCK


@njit("void(float32[::1], intp, intp)", nogil=True)
def stream(array: NDArray[np.float32], first: int, blocks: int) -> None:
    """Read and write `blocks` blocks from `first` on, cyclically.

    In place, as an update does it: what is written has been read, and no line of the cache is fetched only to be
    overwritten, of which it would be open whether it counts.
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
        # Go on where this run ended: what it touched last is still in a cache.
        self._place += blocks


class Bandwidth(Contender):
    """Stands in the round like `Peak`, so that its figure is of the same minutes as the libraries'."""

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        """It needs no images, but memory that is there: written once."""
        size = _ARRAYS_BYTES // 4 // self.threads
        self._arrays = [np.full(size, 0.5, np.float32) for _ in range(self.threads)]

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(work, self._arrays)
