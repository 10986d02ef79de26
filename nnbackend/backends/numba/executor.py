"""Runs a program with the compiled epoch function, on several threads if there is enough work."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnbackend.backends.executor import INFINITE, NOTHING, SUSPECT, Constants, Executor, RunRows
from nnbackend.backends.numba import epoch, prediction
from nnbackend.backends.numba.lines import Array
from nnbackend.backends.numba.program import Program

__all__ = ["PIECE", "CompiledExecutor", "Team"]

#: Minimum numbers of multiply-adds in a step, and in a run, for more than one thread. Below these, barriers and waking
#: threads cost more than they save.
_SHARED_STEP = 6_000_000
_SHARED_RUN = 20_000_000

#: Multiply-adds of a prediction that threads share if they are waiting for it, and the seconds since the end of the
#: last such prediction after which none are kept waiting.
_WORTH_HELP, _SOON = 300_000, 1e-3

#: Number of checks for which a thread waits for the next prediction, some 50 microseconds, and the multiply-adds for
#: which it waits for one more: longer than the step takes on one thread, as it does while this thread wakes up.
_WAITS, _WORK_PER_WAIT = 2_500, 300

#: Number of checks for which a prediction waits for a thread that is waiting for it, up to a microsecond.
_PATIENCE = 40

#: Control returns to Python after about this many multiply-adds, a fraction of a second, so that Ctrl-C need not wait
#: for the end of an epoch.
PIECE = 10_000_000_000


#: For a step without help.
_NO_MAILS = np.zeros((0, prediction.MAIL), np.int64)


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
        #: What the threads that wait for predictions read and write, and when the last one was.
        self._mails = np.zeros((threads - 1, prediction.MAIL), np.int64)
        self._barrier = np.zeros(2, np.int64)
        self._last = 0.0
        #: The last arguments of `prediction.run_shared` for a step without help.
        self.alone = _NO_MAILS, self._barrier, False, 1, True
        #: Changes with the arrays of the backend, but not by predictions.
        self.stamp = object()

    @contextmanager
    def at_most(self, threads: int) -> Iterator[None]:
        """A context in which no more than this number of threads run the programs of the calling thread."""
        self._most.value = threads
        try:
            yield
        finally:
            self._most.value = self.threads

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.threads,)

    def run(self, program: Program, steps: int) -> None:
        """Run several steps of a program."""
        worth = program.work >= _SHARED_STEP and program.work * steps >= _SHARED_RUN
        others = self._take(1) if worth else 0
        try:
            if others:
                self.run_together(program, steps, 1 + others)
            else:
                _run(program, steps, 0, 1, np.zeros(2, np.int64))
        finally:
            self._give_back(others)
            self.note_change()

    def note_change(self) -> None:
        """Note that arrays, and so perhaps weights, have changed."""
        self.stamp = object()

    def share(self, work: int, run: Callable[..., int], together: Callable[[], int]) -> int:
        """Run a step that predicts, with all other threads if it is worth it and they are free; returns flags.

        Parameters
        ----------
        work : int
            Its multiply-adds.
        run : callable
            Runs it on this thread and those that wait; takes the last arguments of :func:`prediction.run_shared`.
        together : callable
            Runs it on all threads.
        """
        # One call of compiled code, because each takes longer than the step of a small network. All threads or none.
        others = self._take(self.threads - 1) if work >= self.worth_help else 0
        if not others:
            return run(*self.alone)
        try:
            soon, large = time.perf_counter() - self._last < _SOON, work >= _SHARED_RUN
            states = self._mails[:, prediction.STATE]
            # A large step is run by all threads, unless some are waiting. They then wait for the next.
            flag = run(self._mails, self._barrier, soon and not large, _PATIENCE, not large or bool(states.any()))
            if flag & prediction.NOBODY:
                flag |= together()
                if soon:
                    states[...], flag = prediction.WAKING, flag | prediction.WAKE
            if flag & prediction.WAKE:
                self._wake(_WAITS + min(work, _SHARED_RUN) // _WORK_PER_WAIT)
        finally:
            self._last = time.perf_counter()
            self._give_back(others)
        return flag & (NOTHING | INFINITE | SUSPECT)

    def share_chunks(self, work: int, step: tuple[Any, ...]) -> None:
        """The same for a step of which threads take chunks; `step` are its table, counter and scratch."""
        others = self._take(self.threads - 1) if work >= self.worth_help else 0
        if not others:
            prediction.run_shared(*step, *self.alone)
            return
        try:
            soon, waits = time.perf_counter() - self._last < _SOON, _WAITS + min(work, _SHARED_RUN) // _WORK_PER_WAIT
            flag = prediction.run_open(*step, self._mails, work >= _SHARED_RUN)
            if flag & prediction.WAKE:
                try:
                    self._wake(waits)
                finally:
                    prediction.run_open(*step, self._mails, False)
            elif flag & prediction.NOBODY and soon:
                # They come too late for this step, but not for the next.
                states = self._mails[:, prediction.STATE]
                states[states == prediction.ASLEEP] = prediction.WAKING
                self._wake(waits)
        finally:
            self._last = time.perf_counter()
            self._give_back(others)

    @property
    def worth_help(self) -> int:
        """Multiply-adds from which threads share a prediction."""
        return _WORTH_HELP

    def _take(self, fewest: int) -> int:
        """Take as many of the other threads as are free and the caller may use; none if they are fewer than these."""
        if self._process not in (0, os.getpid()):
            # Threads do not survive a fork, and a lock that one of them held stays locked.
            self._lock, self._pool, self._process = threading.Lock(), None, 0
            self._free = self.threads - 1
            self._mails[...] = prediction.ASLEEP
        most = min(getattr(self._most, "value", self.threads), self.threads) - 1
        if most < max(1, fewest):
            return 0
        with self._lock:
            taken = min(most, self._free)
            if taken < fewest:
                return 0
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="nnbackend")
                self._process = os.getpid()
            self._free -= taken
        return taken

    def _give_back(self, others: int) -> None:
        with self._lock:
            self._free += others

    def _wake(self, waits: int) -> None:
        """Let the threads that `predict` has counted wait for the next call, for a number of checks."""
        assert self._pool is not None
        for place in np.flatnonzero(self._mails[:, prediction.STATE] == prediction.WAKING):
            try:
                self._pool.submit(prediction.serve, self._mails, int(place), waits)
            except RuntimeError:
                # The interpreter is shutting down.
                self._mails[place, prediction.STATE] = prediction.ASLEEP

    def run_together(self, program: Program, steps: int, threads: int) -> None:
        """Run a program on this thread and others that were taken."""
        assert self._pool is not None
        prediction.dismiss(self._mails)
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
    from_rows : callable
        The method of that name, which other modules implement.
    """

    name = "compiled"
    reason = "every operation of the step is known to the compiled epoch function"
    apart = True

    def __init__(
        self, program: Program, team: Team, from_rows: Callable[[Array, Array, Constants, int], RunRows | None]
    ) -> None:
        self._program, self._team, self._from_rows = program, team, from_rows

    def exchange(self, arrays: Sequence[tuple[Array, Array]], seed: int) -> bool:
        self._program.exchange(arrays, seed)
        return True

    def from_rows(self, x: Array, outputs: Array, constants: Constants, slices: int = 0) -> RunRows | None:
        return self._from_rows(x, outputs, constants, slices)

    def run(self, repeats: int) -> None:
        piece = max(1, PIECE // max(1, self._program.work))
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
