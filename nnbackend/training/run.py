"""The training steps of a run: recorded once, replayed epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnbackend.backends.base import Array, Backend, Executor
from nnbackend.distributed.communicator import Alone, Communicator
from nnbackend.distributed.slices import Slice
from nnbackend.feeds import Feed, Order
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.step import OptimizerMemory, Recorder, Workspace, record_gradients, record_training, record_update
from nnbackend.training.division import Division
from nnbackend.training.halves import Clear, SummedExecutor

__all__ = ["EpochResult", "TrainingRun", "epoch_order"]

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
    """

    losses: npt.NDArray[np.float64]
    loss: float
    hits: float
    rows: int
    seconds: float


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
    communicator : Communicator, optional
        The ranks that share the batches.
    shards : sequence of int, optional
        If each rank has rows of its own: how many.
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
        communicator: Communicator | None = None,
        shards: Sequence[int] | None = None,
    ) -> None:
        model, backend = network.model, network.backend
        self._communicator = Alone() if communicator is None else communicator
        #: The batches of an epoch.
        self.batches = Division(self._communicator, feed.count, batch_size, steps_per_epoch, shards)
        #: Rows an epoch sees, on all ranks.
        self.rows_per_epoch = self.batches.rows
        self._network = network
        self._loss = loss
        self._memory = memory
        self._feed = feed
        self._shuffle = shuffle
        self._counter = backend.empty((3,), np.int64)
        self._order = backend.empty((self.batches.own_rows,), np.int64)
        self._rates = backend.empty((self.batches.steps,), np.float64)
        self._trace = backend.empty((self.batches.steps, 3), np.float64)
        self._gradients = backend.empty((model.layout.size,), model.dtype)
        self._ahead = _Ahead(backend, self.batches.own_rows) if backend.works_apart else None
        workspace = Workspace(backend, self.batches.batch_size)
        self.executors: list[tuple[Executor, int]] = [
            (self._executor(piece, workspace), piece.repeats) for piece in self.batches.slices
        ]

    def _executor(self, piece: Slice, workspace: Workspace) -> Executor:
        """For the steps on some rows: recorded in one piece, or in two with the sum over all ranks between them."""
        model, backend, memory, gradients = self._network.model, self._network.backend, self._memory, self._gradients
        recorder = Recorder(model, workspace, piece.rows, self._counter, True, piece.first, piece.batch)
        rows_of_batches = (self._feed.examples, self._order, self.batches.batch_size, self._loss)
        if self._communicator.size == 1:
            record_training(recorder, *rows_of_batches, memory, gradients, self._rates, self._trace)
            return backend.executor(recorder.calls)
        rows = record_gradients(recorder, *rows_of_batches, gradients) if piece.rows else None
        half = len(recorder.calls)
        record_update(recorder, rows, memory, gradients, self._rates, self._trace)
        first = backend.executor(recorder.calls[:half]) if piece.rows else Clear(backend, gradients)
        reduce = self._communicator.reducer(backend, gradients)
        return SummedExecutor(first, reduce, backend.executor(recorder.calls[half:]))

    @property
    def learning_rate(self) -> float:
        """The rate of the coming epoch's first step."""
        return self._memory.optimizer.schedule.rate(self._memory.epochs)

    def epoch(self, stop: Callable[[], bool], progress: Callable[[int], None]) -> EpochResult:
        """Run one epoch.

        Parameters
        ----------
        stop : callable
            Asked every tenth of a second or so whether to end the epoch after the step at hand.
        progress : callable
            Told how many steps have been handed to the device.
        """
        network, memory = self._network, self._memory
        self.begin()
        begin = time.perf_counter()
        steps = self._replay(stop, progress)
        if self._ahead is not None:
            following = network.epochs_trained + 1
            self._ahead.send(following, order := self._draw(following), self._feed.places(order))
        # Where GPUs talk among themselves, nobody watches while the host waits for its own.
        self._communicator.barrier()
        network.backend.synchronize()
        seconds = time.perf_counter() - begin

        network.steps_trained += steps
        memory.steps += steps
        if steps:
            network.epochs_trained += 1
            memory.epochs += 1
        return self._result(steps, seconds)

    def begin(self) -> None:
        """Bring the coming epoch's order, learning rates and counters to the device."""
        network, memory, backend = self._network, self._memory, self._network.backend
        epoch = network.epochs_trained
        if self._ahead is not None and self._ahead.epoch == epoch:
            order = self._ahead.take(self._order)
        else:
            order = self._draw(epoch)
            backend.write(self._feed.places(order), self._order)
        self._feed.begin(order, epoch)
        backend.write(memory.optimizer.schedule.epoch_rates(memory.epochs, self.batches.steps), self._rates)
        backend.write(np.array([0, network.steps_trained, memory.steps], np.int64), self._counter)

    def _draw(self, epoch: int) -> Order:
        length = self.batches.own_rows if self.batches.sharded else self.rows_per_epoch
        return self.batches.part(epoch_order(self._network.seed, epoch, self._feed.count, length, self._shuffle))

    def _replay(self, stop: Callable[[], bool], progress: Callable[[int], None]) -> int:
        done, portion = 0, 1
        for (executor, left), piece in zip(self.executors, self.batches.slices, strict=True):
            while left:
                steps = self._agree(0 if stop() else min(portion, left))
                if not steps:
                    return done
                begin = time.perf_counter()
                left -= steps
                while steps:
                    # A rank whose rows are used up asks for no more.
                    now = min(steps, self._feed.ready(done)) if piece.rows else steps
                    executor.run(now)
                    steps -= now
                    done += now
                    progress(done)
                if time.perf_counter() - begin < _PORTION / 2:
                    portion *= 2
        return done

    def _agree(self, steps: int) -> int:
        """How many steps all ranks take before they listen for Ctrl-C again: as many as the first rank says, and none
        if it has come to one of them."""
        if self._communicator.size == 1:
            return steps
        said = np.array([steps if self._communicator.rank == 0 else 0, steps == 0], np.int64)
        self._communicator.allreduce(said)
        return 0 if said[1] else int(said[0])

    def _result(self, steps: int, seconds: float) -> EpochResult:
        trace = self._whole_trace()[:steps]
        sizes = self.batches.sizes[:steps]
        rows = int(sizes.sum())
        sums = trace[:, 0] + trace[:, 2]
        seen = max(rows, 1)
        return EpochResult(sums / sizes, float(sums.sum()) / seen, float(trace[:, 1].sum()) / seen, rows, seconds)

    def _whole_trace(self) -> npt.NDArray[np.float64]:
        """The sums over each batch, those of all ranks together."""
        trace: npt.NDArray[np.float64] = self._network.backend.to_host(self._trace)
        if self._communicator.size > 1:
            # The losses were weighted with this rank's share, so that the gradients are.
            shares = self.batches.shares().astype(self._network.dtype).astype(np.float64)
            trace[:, 0] /= np.where(shares == 0, 1, shares)
            self._communicator.allreduce(trace)
        return trace
