"""How fast the cores compute and read at most: the least time for some arithmetic and some bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.peers.contenders.peak import multiply_adds, rounds_for

__all__ = ["least_seconds", "read"]

#: A measurement takes at least this long, so that starting threads has negligible cost.
_SECONDS = 0.01
#: Measurements after the first.
_MORE = 2


@njit("float32(float32[::1], intp)", nogil=True, fastmath=True)
def read(array: NDArray[np.float32], times: int) -> float:
    """Read an array some times; returns the sum of all that was read."""
    total = np.float32(0)
    for _ in range(times):
        for i in range(array.size):
            total += array[i]
    return total


def least_seconds(flops: float, size: int, threads: int) -> float:
    """The longer of the times for a number of float32 multiplications and additions, and for reading some bytes.

    Both are shared by the threads, and repeated, so that the bytes are in the caches if they fit.
    """
    arrays = [np.ones(max(1, size // 4 // threads), np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def computing(times: int) -> None:
            list(pool.map(multiply_adds, [rounds_for(flops * times, threads)] * threads))

        def reading(times: int) -> None:
            list(pool.map(read, arrays, [times] * threads))

        return max(_seconds(computing), _seconds(reading))


def _seconds(work: Callable[[int], None]) -> float:
    """The seconds of one repetition; the least of a few measurements, because other programs only add to them."""
    times, taken = 1, 0.0
    while taken < _SECONDS:
        times *= 2
        taken = _once(work, times)
    return min(taken, *(_once(work, times) for _ in range(_MORE))) / times


def _once(work: Callable[[int], None], times: int) -> float:
    begin = time.perf_counter()
    work(times)
    return time.perf_counter() - begin
