"""The training steps of a run: recorded once, replayed epoch by epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnbackend.backends.base import Array, Backend, Executor
from nnbackend.evaluation import Batches
from nnbackend.feeds import Feed, Order
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.step import OptimizerMemory, Recorder, Workspace, record_training
from nnbackend.training.skipping import Skipping

__all__ = ["EpochResult", "TrainingRun", "Watch", "epoch_order"]

#: Separates the stream of batch orders from the other uses of a network's seed.
_ORDER_STREAM = 1

#: Steps are handed to the executor in portions of about this many seconds, so that Ctrl-C is heard.
_PORTION = 0.1


@dataclass(eq=False, repr=False)
class EpochResult:
    """What an epoch came to.

    Attributes
    ----------
    losses : (steps,) float64
        Mean loss over each minibatch, penalties included.
    loss, hits : float
        Means over all rows seen.
    rows : int
        Rows seen; fewer than all if the epoch was interrupted.
    seconds : float
    skipped : int
        Steps that were left out; their losses are NaN, and their rows count nowhere else.
    """

    losses: npt.NDArray[np.float64]
    loss: float
    hits: float
    rows: int
    seconds: float
    skipped: int = 0


def epoch_order(seed: int, epoch: int, count: int, length: int | None = None, shuffle: bool = True) -> Order:
    """The order of the rows in an epoch: a function of its arguments alone, so resuming needs no generator state.

    Passes over all rows follow each other without end, each shuffled anew, and an epoch is the next `length` rows of
    them.

    Parameters
    ----------
    seed : int
        The network's.
    epoch : int
        From 0.
    count : int
        How many rows there are.
    length : int, optional
        How many rows an epoch sees; all of them once if not given.
    shuffle : bool
        False for the rows as they come.
    """
    length = count if length is None else length
    begin = epoch * length
    if not shuffle:
        return np.arange(begin, begin + length, dtype=np.int64) % count
    first, start = divmod(begin, count)
    passes = range(first, first + -(-(start + length) // count))
    return np.concatenate([_permutation(seed, number, count) for number in passes])[start : start + length]


def _permutation(seed: int, number: int, count: int) -> Order:
    generator = np.random.Generator(np.random.Philox(key=[seed, (_ORDER_STREAM << 32) + number]))
    return generator.permutation(count)


class Watch:
    """Looks on while the steps of an epoch run, at steps of its own choice. This one never stops them."""

    def steps(self, done: int) -> int:
        """How many steps may run before `reached` is called, `done` being done: at least 1."""
        return sys.maxsize

    def reached(self, done: int) -> None:
        """So many steps of the epoch were handed to the device."""

    def cut(self, done: int) -> None:
        """The epoch ends after so many steps, before its last."""

    def epoch_ended(self, last: bool) -> None:
        """All that belongs to an epoch is done; whether it was the run's last."""


class _Ahead:
    """Brings the coming epoch's order to the device while it is at work on this one's.

    Drawing the order of many rows and copying it takes as long as a GPU takes for a good part of an epoch.

    Attributes
    ----------
    epoch : int
        The one whose order is there; -1 if none is.
    """

    def __init__(self, backend: Backend, rows: int) -> None:
        self.epoch = -1
        self._backend = backend
        self._half = 0
        self._halves = (backend.empty((rows,), np.int64), backend.empty((rows,), np.int64))
        self._staging = backend.staging(self._halves, (rows,), np.int64)
        self._order: Order = np.empty(0, np.int64)

    def send(self, epoch: int, order: Order, places: Order) -> None:
        """Bring an epoch's order, and where its rows will be."""
        self.epoch, self._order = epoch, order
        self._half = 1 - self._half
        self._staging.memory(self._half)[...] = places
        self._staging.send(self._half)

    def take(self, out: Array) -> Order:
        """The epoch's order; where its rows are goes to `out`, on the device."""
        self.epoch = -1
        self._backend.copy(self._halves[self._half], out)
        return self._order


class TrainingRun:
    """Everything on the device that training needs, and the executors that replay its steps.

    Parameters
    ----------
    network : Network
    loss : Loss
    memory : OptimizerMemory
    feed : Feed
        Brings the rows.
    batch_size : int
    shuffle : bool
    steps_per_epoch : int, optional
        As many as it takes to see every row once, if not given.
    skip_broken : bool
        Whether steps that would break the network are left out.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        memory: OptimizerMemory,
        feed: Feed,
        batch_size: int,
        shuffle: bool,
        steps_per_epoch: int | None = None,
        skip_broken: bool = False,
    ) -> None:
        model, backend = network.model, network.backend
        #: Rows an epoch sees.
        self.rows_per_epoch = feed.count if steps_per_epoch is None else steps_per_epoch * batch_size
        self.batches = Batches(self.rows_per_epoch, batch_size)
        self._network = network
        self._memory = memory
        self._feed = feed
        self._shuffle = shuffle
        self._counter = backend.empty((3,), np.int64)
        self._order = backend.empty((self.rows_per_epoch,), np.int64)
        self._rates = backend.empty((self.batches.steps,), np.float64)
        self._trace = backend.empty((self.batches.steps, 3), np.float64)
        self._skipping = Skipping(network, memory, self._counter, self._trace) if skip_broken else None
        gradients = backend.empty((model.layout.size,), model.dtype)
        workspace = Workspace(backend, batch_size)
        # How far a run that is resumed within an epoch had come in it, and in how many seconds.
        self._first, self._before = 0, 0.0
        self._began = 0.0
        self._ahead = _Ahead(backend, self.rows_per_epoch) if backend.works_apart else None
        self.executors: list[tuple[Executor, int]] = []
        for rows, repeats in self.batches.kinds:
            recorder = Recorder(model, workspace, rows, self._counter, training=True)
            record_training(
                recorder, feed.examples, self._order, batch_size, loss, memory, gradients, self._rates, self._trace
            )
            self.executors.append((backend.executor(recorder.calls), repeats))

    @property
    def learning_rate(self) -> float:
        """The rate of the coming epoch's first step."""
        return self._memory.optimizer.schedule.rate(self._memory.epochs)

    def resume(self, trace: npt.NDArray[np.float64], seconds: float) -> None:
        """Let the coming epoch go on where `so_far` of another process said it was.

        Parameters
        ----------
        trace : (steps that are done, 3) float64
        seconds : float
        """
        whole = np.zeros((self.batches.steps, 3))
        whole[: len(trace)] = trace
        self._network.backend.write(whole, self._trace)
        self._first, self._before = len(trace), seconds
        if self._skipping is not None:
            self._skipping.count = int(np.isnan(trace).any(axis=1).sum())

    @property
    def skipped(self) -> int:
        """How many steps of the epoch at hand were left out."""
        return 0 if self._skipping is None else self._skipping.count

    def so_far(self, done: int) -> tuple[npt.NDArray[np.float64], float]:
        """The trace of the steps that are done of the epoch at hand, and the seconds they took."""
        trace = self._network.backend.to_host(self._trace)[:done]
        return trace, self._before + time.perf_counter() - self._began

    def epoch(
        self, stop: Callable[[], bool], progress: Callable[[int], None], watch: Watch | None = None
    ) -> EpochResult:
        """Run one epoch, or the rest of one.

        Parameters
        ----------
        stop : callable
            Asked every tenth of a second or so whether to end the epoch after the step at hand.
        progress : callable
            Told how many steps have been handed to the device.
        watch : Watch, optional
        """
        network, memory = self._network, self._memory
        self.begin()
        self._began = time.perf_counter()
        steps = self._replay(stop, progress, watch or Watch())
        if self._ahead is not None:
            following = network.epochs_trained + 1
            self._ahead.send(following, order := self._draw(following), self._feed.places(order))
        network.backend.synchronize()
        seconds = self._before + time.perf_counter() - self._began
        self._first, self._before = 0, 0.0

        result = self._result(steps, seconds)
        network.steps_trained += steps
        memory.steps += steps - self.skipped
        if self._skipping is not None:
            self._skipping.count = 0
        if steps:
            network.epochs_trained += 1
            memory.epochs += 1
        return result

    def begin(self) -> None:
        """Bring the coming epoch's order, learning rates and counters to the device."""
        network, memory, backend = self._network, self._memory, self._network.backend
        epoch = network.epochs_trained
        if self._ahead is not None and self._ahead.epoch == epoch:
            order = self._ahead.take(self._order)
        else:
            order = self._draw(epoch)
            backend.write(self._feed.places(order), self._order)
        self._feed.begin(order, epoch, self._first)
        backend.write(memory.optimizer.schedule.epoch_rates(memory.epochs, self.batches.steps), self._rates)
        counts = np.array([0, network.steps_trained, memory.steps - self.skipped], np.int64) + self._first
        backend.write(counts, self._counter)

    def _draw(self, epoch: int) -> Order:
        return epoch_order(self._network.seed, epoch, self._feed.count, self.rows_per_epoch, self._shuffle)

    def _replay(self, stop: Callable[[], bool], progress: Callable[[int], None], watch: Watch) -> int:
        done, portion, end = self._first, 1, 0
        for executor, repeats in self.executors:
            end += repeats
            while done < end and not stop():
                begin = time.perf_counter()
                steps = min(portion, end - done, self._feed.ready(done), watch.steps(done))
                if self._skipping is None:
                    executor.run(steps)
                else:
                    self._skipping.run(executor, done, steps)
                done += steps
                progress(done)
                if time.perf_counter() - begin < _PORTION / 2:
                    portion *= 2
                watch.reached(done)
        if done < end:
            watch.cut(done)
        return done

    def _result(self, steps: int, seconds: float) -> EpochResult:
        trace = self._network.backend.to_host(self._trace)[:steps]
        rows = min(steps * self.batches.size, self.rows_per_epoch)
        sizes = np.full(steps, self.batches.size)
        if steps > self.batches.full:
            sizes[-1] = self.batches.rest
        sums = trace[:, 0] + trace[:, 2]
        losses = sums / sizes
        if self.skipped:
            kept = ~np.isnan(sums)
            trace, sums, sizes = trace[kept], sums[kept], sizes[kept]
            seen = max(int(sizes.sum()), 1)
        else:
            seen = max(rows, 1)
        loss, hits = float(sums.sum()) / seen, float(trace[:, 1].sum()) / seen
        return EpochResult(losses, loss, hits, rows, seconds, self.skipped)
