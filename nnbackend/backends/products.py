"""Matrix products on the CPU with bit-identical results for any number of threads.

A threaded BLAS splits a product into one part per thread, and the order of sums depends on a part's shape. With another
number of threads the last bits differ, and after some steps all of them do. Here the result is split into blocks whose
size depends only on the shapes. Each block is a single-threaded BLAS call, and a pool of threads runs them in parallel.

This also avoids contention between the pool and BLAS's own threads, which spin while idle.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.support.cores import usable_cores
from nnbackend.support.fork_lock import ForkLock

__all__ = ["ALONE", "Products", "usable_threads"]

_log = logging.getLogger("nnbackend")

Real = npt.NDArray[np.floating[Any]]

#: Minimum number of multiply-adds in a block: about ten times the cost of passing it to another thread, and enough that
#: one more copy of the other factor does not matter.
_BLOCK_WORK = 16_000_000
_MAX_BLOCKS = 64


@functools.cache
def _controller() -> Any:
    """The BLAS libraries of this process; none without threadpoolctl, which machines that only use a GPU may lack."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        _log.warning("threadpoolctl is not installed, so NumPy's results may depend on the number of BLAS's threads")
        return SimpleNamespace(info=list, lib_controllers=[])
    return ThreadpoolController().select(user_api="blas")


def usable_threads() -> int:
    """The number of CPUs available to this process, or BLAS's configured number of threads if that is lower."""
    limits: list[int] = [library["num_threads"] for library in _controller().info()]
    return max(1, min([usable_cores(), *limits]))


class _Alone:
    """Limits BLAS to one thread while any thread is inside: the first to enter sets the limit, and the last to leave
    restores it. There is one per process, because BLAS's limit is global."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._inside = 0
        #: The previous limits of the libraries.
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = [library["num_threads"] for library in _controller().info()]
                _tell_blas([1] * len(self._before))
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _tell_blas(self._before)


def _tell_blas(threads: list[int]) -> None:
    for library, count in zip(_controller().lib_controllers, threads, strict=True):
        # Since version 3.8 threadpoolctl lets only the thread that first set OpenBLAS's limit change it again. Here any
        # thread may.
        release = getattr(library, "clear_controlling_thread", lambda force: None)
        release(force=True)
        library.set_num_threads(count)
        release(force=True)


#: Within ``with ALONE:`` BLAS uses one thread.
ALONE = _Alone()


class Products:
    """Multiplies matrices on a pool of threads.

    Parameters
    ----------
    threads : int, optional
        `usable_threads()` if not given.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = usable_threads() if threads is None else threads
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.threads,)

    def matmul(self, a: Real, b: Real, out: Real) -> None:
        """``out = a @ b``; (m, k), (k, n) -> (m, n), any strides."""
        m, n = out.shape
        blocks = _block_count(max(m, n), m * n * a.shape[1])
        if blocks == 1:
            np.matmul(a, b, out=out)
            return
        parts = _cut(a, b, out, blocks)
        if self.threads == 1:
            _multiply(parts)
            return
        pool = self._workers()
        # Each worker gets a fixed share of the blocks, which costs one task per thread instead of one per block.
        share = -(-len(parts) // self.threads)
        futures = [pool.submit(_multiply, parts[begin : begin + share]) for begin in range(share, len(parts), share)]
        _multiply(parts[:share])
        for future in futures:
            future.result()

    def _workers(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork, so the child creates its own.
        if self._pool is None or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="nnbackend")
            self._process = os.getpid()
        return self._pool


#: The two factors of a block, and its result.
_Part = tuple[Real, Real, Real]


def _cut(a: Real, b: Real, out: Real, blocks: int) -> list[_Part]:
    """Split a product along the longer side of the result.

    BLAS packs both factors before it multiplies. The factor that is not split is packed once per block, so it should be
    the small one.
    """
    m, n = out.shape
    edges = [max(m, n) * block // blocks for block in range(blocks + 1)]
    spans = [slice(begin, end) for begin, end in itertools.pairwise(edges)]
    if m >= n:
        return [(a[span], b, out[span]) for span in spans]
    return [(a, b[:, span], out[:, span]) for span in spans]


def _multiply(parts: list[_Part]) -> None:
    # The threads of the pool do not inherit NumPy's error state.
    with np.errstate(all="ignore"):
        for a, b, out in parts:
            np.matmul(a, b, out=out)


@functools.cache
def _block_count(side: int, work: int) -> int:
    """The number of blocks: a power of two, so that it divides evenly among typical numbers of cores."""
    most = min(work // _BLOCK_WORK, _MAX_BLOCKS, side)
    return 1 << (max(most, 1).bit_length() - 1)
