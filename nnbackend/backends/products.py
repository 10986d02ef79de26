"""Matrix products on the CPU whose bits do not depend on the number of threads.

A threaded BLAS cuts a product into as many parts as it has threads, and a part's shape decides in which order its
sums are taken: with another number of threads the last bits differ, and after some steps all of them do. Here the
result is cut into blocks by a rule that looks at the shapes alone. Each block is one single-threaded
BLAS call, and as many of them run at a time as there are threads.

Nor does this backend's pool of threads fight with BLAS's own, whose idle workers spin on the cores that others need.
"""

from __future__ import annotations

import functools
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.support.cores import usable_cores
from nnbackend.support.fork_lock import ForkLock

__all__ = ["ALONE", "Products", "usable_threads"]

Real = npt.NDArray[np.floating[Any]]

#: Multiply-adds that are worth a hand-over to another thread: about ten times its cost, and enough that one more copy
#: of the other factor does not matter.
_BLOCK_WORK = 16_000_000
_MAX_BLOCKS = 64


@functools.cache
def _controller() -> Any:
    """The BLAS libraries of this process."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def usable_threads() -> int:
    """As many threads as this process may run on, or as BLAS was told to use if that is fewer."""
    limits: list[int] = [library["num_threads"] for library in _controller().info()]
    return max(1, min([usable_cores(), *limits]))


class _Alone:
    """Limits BLAS to one thread while any thread is inside: the first one in sets the limit, the last one out restores
    it. There is one for the process, because BLAS's limit is global."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._inside = 0
        #: What the libraries were told before.
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
        # Since version 3.8 threadpoolctl lets only the first thread that ever set OpenBLAS's limit set it again. Here
        # any thread may: the first one in sets the limit and the last one out restores it.
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
        # Each worker takes its own share, so that a product costs one hand-over a thread and not one a block.
        share = -(-len(parts) // self.threads)
        futures = [pool.submit(_multiply, parts[begin : begin + share]) for begin in range(share, len(parts), share)]
        _multiply(parts[:share])
        for future in futures:
            future.result()

    def _workers(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork; the child makes its own.
        if self._pool is None or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="nnbackend")
            self._process = os.getpid()
        return self._pool


#: The two factors of a block, and where it goes.
_Part = tuple[Real, Real, Real]


def _cut(a: Real, b: Real, out: Real, blocks: int) -> list[_Part]:
    """Cut a product along the longer side of the result.

    BLAS copies both factors into an order of its own before it multiplies; the factor that is not cut is copied once
    a block, so it had better be the small one.
    """
    m, n = out.shape
    edges = [max(m, n) * block // blocks for block in range(blocks + 1)]
    spans = [slice(begin, end) for begin, end in itertools.pairwise(edges)]
    if m >= n:
        return [(a[span], b, out[span]) for span in spans]
    return [(a, b[:, span], out[:, span]) for span in spans]


def _multiply(parts: list[_Part]) -> None:
    for a, b, out in parts:
        np.matmul(a, b, out=out)


@functools.cache
def _block_count(side: int, work: int) -> int:
    """A power of two, so that it divides evenly among the usual numbers of cores."""
    most = min(work // _BLOCK_WORK, _MAX_BLOCKS, side)
    return 1 << (max(most, 1).bit_length() - 1)
