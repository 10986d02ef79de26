"""Runs a program with the compiled epoch function, on several threads if there is enough work."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnbackend.backends.executor import Executor, RunRows
from nnbackend.backends.numba import epoch, prediction
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
    """Threads that run one program at a time. If they are busy, the caller runs its program alone, with the same
    result.

    Parameters
    ----------
    threads : int
        Includes the calling thread.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0
        #: Whether a thread runs its programs alone.
        self._alone = threading.local()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A context in which the calling thread runs its programs alone."""
        self._alone.value = True
        try:
            yield
        finally:
            self._alone.value = False

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.threads,)

    def shares(self, program: Program, steps: int) -> bool:
        """Whether there is enough work in these steps for several threads."""
        worth = program.work >= _SHARED_STEP and program.work * steps >= _SHARED_RUN
        return worth and self.threads > 1

    def run(self, program: Program, steps: int) -> None:
        """Run several steps of a program."""
        if self._process not in (0, os.getpid()):
            # Threads do not survive a fork, and a lock that one of them held stays locked.
            self._lock, self._pool = threading.Lock(), None
        worth = self.shares(program, steps) and not getattr(self._alone, "value", False)
        if not worth or not self._lock.acquire(blocking=False):
            _run(program, steps, 0, 1, np.zeros(2, np.int64))
            return
        try:
            self._together(program, steps)
        finally:
            self._lock.release()

    def _together(self, program: Program, steps: int) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="nnbackend")
            self._process = os.getpid()
        barrier = np.zeros(2, np.int64)
        futures = []
        try:
            for thread in range(1, self.threads):
                futures.append(self._pool.submit(_run, program, steps, thread, self.threads, barrier))
            _run(program, steps, 0, self.threads, barrier)
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

    def from_rows(self, x: Array, outputs: Array) -> RunRows:
        program = self._program
        largest, one = np.finfo(x.dtype).max, x.dtype.type(1)
        if self._team.shares(program, 1):

            def run_rows(rows: Array, scale: Any, results: Array) -> int:
                if not prediction.read_rows(rows, scale, largest, x):
                    return 1
                self._team.run(program, 1)
                return 0 if prediction.write_results(outputs, one, largest, results) else 2

            return run_rows
        table, counter, scratch = program.table, program.counter, program.scratch

        def run_alone(rows: Array, scale: Any, results: Array) -> int:
            # One call, because each takes longer than the step of a small network.
            flag: int = prediction.predict(rows, scale, largest, one, x, table, counter, scratch, outputs, results)
            return flag

        return run_alone

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
