"""Trains many networks at once: threads take whole epochs of them from a queue, and never wait for each other.

Where a backend can run equal networks as one, their epochs advance together in the calling thread instead.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from nnbackend.backends.contract import Backend
from nnbackend.ensembles.together import run_together
from nnbackend.support.surroundings import own_error_state
from nnbackend.training.fit import Epochs, Work
from nnbackend.training.interrupt import Interrupt

__all__ = ["run_all"]

#: Trainings in progress for each thread: while the calling thread continues one, the thread finds another in the queue.
_IN_PROGRESS = 2

#: Seconds.
_WAIT = 0.2


def run_all(
    waiting: Iterator[tuple[int, Epochs]],
    ended: Callable[[int, Exception | None], None],
    backend: Backend,
    interrupt: Interrupt,
) -> None:
    """Run trainings, several at a time if the backend can.

    Everything but their work happens in this thread, such as the calls of callbacks.

    Parameters
    ----------
    waiting : iterator of (number, Epochs)
        In the order in which they begin, each when another one has ended.
    ended : callable
        Called with the number of a training that has ended, and the error that ended it.
    backend : Backend
    interrupt : Interrupt
        If it is requested, no training begins, and those in progress end early.
    """
    if backend.programs == 1:
        _Queue(waiting, ended, interrupt, None).run(backend.together)
        return
    with _Threads(backend) as threads:
        _Queue(waiting, ended, interrupt, threads).run(_IN_PROGRESS * backend.programs)


class _Queue:
    """Trainings that wait or are in progress."""

    def __init__(
        self,
        waiting: Iterator[tuple[int, Epochs]],
        ended: Callable[[int, Exception | None], None],
        interrupt: Interrupt,
        threads: _Threads | None,
    ) -> None:
        self._waiting, self._ended, self._interrupt = waiting, ended, interrupt
        self._threads = threads
        self._running: dict[int, Epochs] = {}
        #: Work for this thread.
        self._here: dict[int, Work] = {}
        #: Work for other threads, until it is known how many networks share them.
        self._apart: dict[int, Work] = {}
        #: Results of work that this thread has done.
        self._done: _Results = {}
        #: Such as SystemExit: raised when all trainings have ended.
        self._ending: BaseException | None = None

    def run(self, most: int) -> None:
        """Run all trainings, with at most `most` of them in progress at the same time."""
        while True:
            try:
                while len(self._running) < most and self._may_begin() and self._begin():
                    if self._threads is not None and self._threads.each(len(self._running)) == 1:
                        self._put()
                self._put()
                if not self._running:
                    break
                self._continue(*self._next())
            except BaseException as error:
                # Such as a second Ctrl-C, or SystemExit. All networks end in order first, unless this comes again.
                if self._ending is not None:
                    raise
                self._ending, self._interrupt.requested = error, True
                self._close_lost()
        if self._ending is not None:
            raise self._ending

    def _may_begin(self) -> bool:
        """Whether another training may begin.

        In this thread alone, only those that can run together are in progress at a time: others would gain nothing, and
        each has buffers. If one of another kind has begun, the next waits until either kind has ended.
        """
        if self._interrupt.requested or self._threads is not None or not self._running:
            return not self._interrupt.requested
        kinds = {self._here[number].kind if number in self._here else None for number in self._running}
        return len(kinds) == 1 and None not in kinds

    def _begin(self) -> bool:
        for number, epochs in self._waiting:
            self._running[number] = epochs
            self._continue(number, partial(next, epochs))
            return True
        return False

    def _next(self) -> tuple[int, Callable[[], Work]]:
        """A training whose work is done, and how to continue it."""
        if self._here and not self._done:
            self._work()
        if self._done:
            number = next(iter(self._done))
            result, error = self._done.pop(number)
        else:
            assert self._threads is not None
            number, (result, error) = self._threads.next()
        epochs = self._running[number]
        return number, (lambda: epochs.send(result)) if error is None else (lambda: epochs.throw(error))

    def _work(self) -> None:
        """Do work of this thread: that of one training, or of several that can run together."""
        alone = next(
            (number for number, work in self._here.items() if work.requests is None or work.kind is None), None
        )
        if alone is None and len(self._here) == 1:
            (alone,) = self._here
        if alone is not None:
            self._done[alone] = _done(self._here.pop(alone).call)
            return
        works, self._here = self._here, {}
        requests = {number: work.requests() for number, work in works.items() if work.requests is not None}
        run_together(requests, self._done)

    def _continue(self, number: int, go_on: Callable[[], Work]) -> None:
        try:
            work = go_on()
        except StopIteration:
            self._end(number, None)
        except Exception as error:
            self._end(number, error)
        except BaseException as error:
            self._end(number, None)
            # After SIGTERM, each training ends with SystemExit.
            if self._ending is None or not isinstance(error, SystemExit):
                raise
        else:
            (self._apart if work.apart and self._threads is not None else self._here)[number] = work

    def _put(self) -> None:
        """Give work to the threads."""
        while self._apart:
            assert self._threads is not None
            number = next(iter(self._apart))
            self._threads.put(number, self._apart.pop(number).call, len(self._running))

    def _end(self, number: int, error: Exception | None) -> None:
        del self._running[number]
        self._ended(number, error)

    def _close_lost(self) -> None:
        """Close the trainings that were being continued when an exception came."""
        have_work = {
            *self._here,
            *self._apart,
            *self._done,
            *(() if self._threads is None else self._threads.numbers()),
        }
        for number in self._running.keys() - have_work:
            self._running[number].close()
            self._end(number, None)


#: Work by the number of its training, and how many threads may share it; None ends a thread.
_Todo = SimpleQueue["tuple[int, Callable[[], Any], int] | None"]
_Results = dict[int, tuple[Any, BaseException | None]]


class _Threads:
    """Threads that do work; a context at whose end they have ended."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._todo: _Todo = SimpleQueue()
        #: One entry for each result since it was last empty.
        self._woken: SimpleQueue[None] = SimpleQueue()
        self._submitted: set[int] = set()
        self._results: _Results = {}
        self._threads: list[threading.Thread] = []
        # No thread waits longer than this object lives, even if Ctrl-C comes at the beginning of `__exit__`.
        self._end = weakref.finalize(self, self._todo.put, None)

    def __enter__(self) -> _Threads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        interrupted = None
        while self._threads:
            try:
                self._threads[-1].join()
                self._threads.pop()
            except KeyboardInterrupt as again:
                # The networks must not be used before their threads have ended, which takes as long as some steps.
                interrupted = again
        if interrupted is not None:
            raise interrupted

    def put(self, number: int, call: Callable[[], Any], running: int) -> None:
        """Add work of one of `running` trainings to the queue."""
        self._submitted.add(number)
        self._todo.put((number, call, self.each(running)))
        if (count := len(self._threads)) < self._backend.programs:
            thread = threading.Thread(
                target=_work,
                args=(self._backend, self._todo, self._results, self._woken),
                name=f"nnbackend-many-{count}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)

    def each(self, running: int) -> int:
        """How many threads may run the steps of each of `running` trainings.

        Of two threads, one for each training was 1.2 to 1.6 times as fast as both for one after the other, even for
        networks whose weights exceed the caches (`python -m benchmarks.many --large`). So a training has several only
        if they would have nothing else to do.
        """
        return max(1, self._backend.programs // max(1, running))

    def next(self) -> tuple[int, tuple[Any, BaseException | None]]:
        """Wait for work that is done: its number, and its result or error."""
        while not self._results:
            # Not for longer, because some systems deliver signals only between waits.
            with suppress(Empty):
                self._woken.get(timeout=_WAIT)
        number = next(iter(self._results))
        self._submitted.discard(number)
        return number, self._results.pop(number)

    def numbers(self) -> set[int]:
        """Numbers of work that is not done, or whose result was not taken."""
        return self._submitted | self._results.keys()


def _work(backend: Backend, todo: _Todo, results: _Results, woken: SimpleQueue[None]) -> None:
    """Do work until None comes, which is left for the other threads."""
    with own_error_state():
        while (item := todo.get()) is not None:
            number, call, threads = item
            with backend.at_most(threads):
                results[number] = _done(call)
            # Not kept while this thread waits.
            del item, call
            woken.put(None)
    todo.put(None)


def _done(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """The result of a call, or its error."""
    try:
        return call(), None
    except BaseException as error:
        return None, error
