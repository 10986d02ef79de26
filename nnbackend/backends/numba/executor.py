"""Runs a program with the compiled epoch function, on several threads if there is enough work."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from nnbackend.backends.executor import Executor
from nnbackend.backends.numba import epoch
from nnbackend.backends.numba.lines import Array
from nnbackend.backends.numba.program import Program

__all__ = ["CompiledExecutor", "Team"]

#: Minimum numbers of multiply-adds in a step, and in a run, for more than one thread. Below these, barriers and waking
#: threads cost more than they save.
_SHARED_STEP = 6_000_000
_SHARED_RUN = 20_000_000

#: Control returns to Python after about this many multiply-adds, a fraction of a second, so that Ctrl-C need not wait
#: for the end of an epoch.
_PIECE = 10_000_000_000


class Team:
    """Threads that run programs. Whoever calls runs its program with as many of the others as are free, with the same
    result.

    Parameters
    ----------
    threads : int
        Includes the calling thread.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        #: The others that are free.
        self._free = threads - 1
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0
        #: The most threads that run the programs of a thread.
        self._most = threading.local()

    @contextmanager
    def at_most(self, threads: int) -> Iterator[None]:
        """A context in which at most so many threads run the programs of the calling thread."""
        self._most.value = threads
        try:
            yield
        finally:
            self._most.value = self.threads

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.threads,)

    def run(self, program: Program, steps: int) -> None:
        """Run several steps of a program."""
        others = min(getattr(self._most, "value", self.threads), self.threads) - 1
        if others and program.work >= _SHARED_STEP and program.work * steps >= _SHARED_RUN:
            others = self._take(others)
        else:
            others = 0
        if not others:
            _run(program, steps, 0, 1, np.zeros(2, np.int64))
            return
        try:
            self._together(program, steps, 1 + others)
        finally:
            with self._lock:
                self._free += others

    def _take(self, others: int) -> int:
        """Take this number of the other threads, or as many as are free."""
        if self._process not in (0, os.getpid()):
            # Threads do not survive a fork, and a lock that one of them held stays locked.
            self._lock, self._pool, self._free = threading.Lock(), None, self.threads - 1
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="nnbackend")
                self._process = os.getpid()
            taken = min(others, self._free)
            self._free -= taken
        return taken

    def _together(self, program: Program, steps: int, threads: int) -> None:
        assert self._pool is not None
        barrier = np.zeros(2, np.int64)
        futures = []
        try:
            for thread in range(1, threads):
                futures.append(self._pool.submit(_run, program, steps, thread, threads, barrier))
            _run(program, steps, 0, threads, barrier)
        except BaseException:
            # Such as Ctrl-C before this thread has started: the others must not wait for it forever.
            barrier[1] = 1
            raise
        finally:
            for future in futures:
                future.result()


class CompiledExecutor(Executor):
    """Runs the step as one compiled function that reads it from a table.

    Parameters
    ----------
    program : Program
    team : Team
    """

    name = "compiled"
    reason = "every operation of the step is known to the compiled epoch function"
    apart = True

    def __init__(self, program: Program, team: Team) -> None:
        self._program = program
        self._team = team

    def exchange(self, arrays: Sequence[tuple[Array, Array]], seed: int) -> bool:
        self._program.exchange(arrays, seed)
        return True

    def run(self, repeats: int) -> None:
        piece = max(1, _PIECE // max(1, self._program.work))
        for done in range(0, repeats, piece):
            self._team.run(self._program, min(piece, repeats - done))


def _run(program: Program, steps: int, thread: int, threads: int, barrier: np.ndarray) -> None:
    epoch.run(
        program.table,
        program.advances,
        program.counter,
        steps,
        program.scratch,
        thread,
        threads,
        barrier.ctypes.data,
    )
