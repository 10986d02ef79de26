"""A simulation of `fit_many` with more threads than this machine has.

It knows three kinds of work, measured on one thread: compiled steps, which threads do beside each other; Python between
the epochs in the thread that has run one; and Python in the calling thread, which continues each network after its
epoch. Only one thread at a time runs Python, because of the interpreter lock. The simulation ignores everything else
that threads share: caches, memory bandwidth, the clock rate of a CPU that is busy, and the time in which a thread wakes
up. So it gives an upper bound of what more threads can gain.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

__all__ = ["THREADS", "Parts", "most_threads", "simulate"]

#: Numbers of threads that are simulated.
THREADS = (1, 2, 4, 8, 16, 32, 64)

#: Trainings in progress for each thread, as in :mod:`nnbackend.ensembles.queue`.
_IN_PROGRESS = 2


@dataclass(frozen=True)
class Parts:
    """Seconds of a network's training, measured on one thread.

    Attributes
    ----------
    compiled : float
        Steps of an epoch, without the interpreter lock.
    between : float
        Python of an epoch in the thread that runs its steps.
    calling : float
        Python of an epoch in the calling thread.
    begin : float
        Python that prepares the training of a network in the calling thread, once.
    """

    compiled: float
    between: float
    calling: float
    begin: float

    def alone(self, epochs: int) -> float:
        """Seconds of a network on one thread."""
        return self.begin + epochs * (self.compiled + self.between + self.calling)


class _Simulation:
    """Events in the order of their times. The lock and the threads serve whoever has waited longest."""

    def __init__(self, parts: Parts, threads: int, networks: int, epochs: int) -> None:
        self._parts, self._free = parts, threads
        self._waiting = deque([epochs] * networks)
        self._time, self._numbers = 0.0, count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._lock: deque[tuple[float, Callable[[], None]]] = deque()
        self._locked = self._calling = False
        #: For the calling thread: seconds of Python, and epochs that a network has left after it.
        self._continue: deque[tuple[float, int]] = deque()
        self._todo: deque[int] = deque()
        for _ in range(min(networks, _IN_PROGRESS * threads)):
            self._continue.append((parts.begin, self._waiting.popleft()))

    def run(self) -> float:
        """Seconds until all networks have ended."""
        self._call()
        while self._events:
            self._time, _, happen = heapq.heappop(self._events)
            happen()
        return self._time

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._time + seconds, next(self._numbers), happen))

    def _python(self, seconds: float, then: Callable[[], None]) -> None:
        """Run Python when the lock is free."""
        self._lock.append((seconds, then))
        self._next_python()

    def _next_python(self) -> None:
        if self._locked or not self._lock:
            return
        seconds, then = self._lock.popleft()
        self._locked = True

        def release() -> None:
            self._locked = False
            then()
            self._next_python()

        self._after(seconds, release)

    def _call(self) -> None:
        """The calling thread continues a network."""
        if self._calling or not self._continue:
            return
        self._calling = True
        seconds, epochs = self._continue.popleft()

        def done() -> None:
            self._calling = False
            if epochs:
                self._todo.append(epochs)
                self._work()
            elif self._waiting:
                self._continue.append((self._parts.begin, self._waiting.popleft()))
            self._call()

        self._python(seconds, done)

    def _work(self) -> None:
        """A free thread runs an epoch."""
        if not self._free or not self._todo:
            return
        self._free -= 1
        epochs = self._todo.popleft()

        def ended() -> None:
            self._free += 1
            self._continue.append((self._parts.calling, epochs - 1))
            self._call()
            self._work()

        half = self._parts.between / 2
        self._python(half, lambda: self._after(self._parts.compiled, lambda: self._python(half, ended)))


def simulate(parts: Parts, threads: int, networks: int, epochs: int) -> float:
    """Seconds that this number of threads takes to train the networks."""
    return _Simulation(parts, threads, networks, epochs).run()


def most_threads(parts: Parts, epochs: int, efficiency: float = 0.8) -> int:
    """The largest of 1, 2, 4, ... 1,024 threads that are busy with this part of what they could do, with 16 networks
    for each."""
    found = 1
    for threads in (2**power for power in range(11)):
        networks = 16 * threads
        ideal = parts.alone(epochs) * networks / threads
        if ideal / simulate(parts, threads, networks, epochs) < efficiency:
            break
        found = threads
    return found
