"""The steps of a training run, recorded once and replayed in every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.augment import Augmentation
from nnbackend.backends.arrays import dtype_name
from nnbackend.backends.contract import Array, Backend, Executor
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.feed import Feed
from nnbackend.data.order import Order, OrderPrefetch, epoch_order
from nnbackend.distributed.communicator import Alone, Communicator
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.schedules import checked_rates
from nnbackend.step.accumulation import record_accumulated
from nnbackend.step.averaging import WeightAverage
from nnbackend.step.options import StepOptions
from nnbackend.step.recorder import OptimizerState, Recorder, record_gradients, record_update
from nnbackend.step.recordings import Borrowed, Recordings, is_ours
from nnbackend.step.replay import Replay, Requests, Watch, run_requests
from nnbackend.training.divergence import Skipping

__all__ = ["EpochResult", "SummedExecutor", "TrainingRun"]


@dataclass(eq=False, repr=False)
class EpochResult:
    """The results of an epoch's steps.

    Attributes
    ----------
    losses : (steps,) float64
        Mean loss over each minibatch, including penalties.
    loss, correct : float
        Means over all rows seen.
    rows : int
        Rows seen; fewer than all if the epoch was interrupted.
    seconds : float
    learning_rate : float
        The rate of the first step.
    skipped : int
        Number of skipped steps; their losses are NaN, and their rows count only in `rows`.
    cut : bool
        Whether the epoch was interrupted before its last step.
    """

    losses: npt.NDArray[np.float64]
    loss: float
    correct: float
    rows: int
    seconds: float
    learning_rate: float
    skipped: int
    cut: bool


class TrainingRun:
    """Everything on the device that training needs, and the executors that replay its steps.

    Parameters
    ----------
    network : Network
    loss : Loss
    memory : OptimizerState
    feed : Feed
        Provides the rows.
    batch_size : int
        Rows of a step.
    shuffle : bool
    steps_per_epoch : int, optional
        Default: one pass over all rows.
    skip_broken : bool
        Whether to skip steps that would break the network.
    communicator : Communicator, optional
        The ranks that share the batches.
    shards : sequence of int, optional
        Rows of each rank, if each rank has its own.
    augment : sequence of Augmentation
        Applied to the samples of each batch.
    recordings : Recordings, optional
        May have a recorded step.
    options : StepOptions, optional

    Attributes
    ----------
    average : WeightAverage or None
        Which the network has between epochs.
    batches : Batches
        The batches of an epoch.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        memory: OptimizerState,
        feed: Feed,
        batch_size: int,
        shuffle: bool,
        steps_per_epoch: int | None = None,
        skip_broken: bool = False,
        communicator: Communicator | None = None,
        shards: Sequence[int] | None = None,
        augment: Sequence[Augmentation] = (),
        recordings: Recordings | None = None,
        options: StepOptions | None = None,
    ) -> None:
        model, backend = network.model, network.backend
        self._communicator = Alone() if communicator is None else communicator
        rank, ranks = self._communicator.rank, self._communicator.size
        self.batches = Batches(feed.count, batch_size, steps_per_epoch, rank, ranks, shards)
        self._network, self._loss, self._memory = network, loss, memory
        self._feed, self._shuffle, self._augment = feed, shuffle, augment
        self._options = StepOptions() if options is None else options
        self.average = None if self._options.ema is None else WeightAverage(model, self._options.ema)
        averages = [] if self.average is None else [self.average.average]
        self._momenta: Array | None = None
        optimizer = memory.optimizer
        # Random transformations and momenta of a schedule have arrays and constants of their own.
        plain = not augment and not optimizer.schedule.sets_momentum
        usable = plain and not skip_broken and self._communicator.size == 1 and is_ours([optimizer, loss])
        self._borrowed = Borrowed(
            recordings if usable else None,
            model,
            feed,
            self.batches,
            # Everything else that `_make_executor` uses must be here.
            ("training", loss, type(optimizer), optimizer.rule(), tuple(memory.slots), self._options),
            [*memory.slots.values(), *averages],
            self._record,
        )
        self._replay = self._borrowed.replay
        skips = (network, memory, self._replay, self._communicator, self.average)
        self._skipping = Skipping(*skips) if skip_broken else None
        # Where other networks wait for the thread, portions that start small would take longer than short epochs. How
        # long a portion takes is not known to a host that does not wait for its device.
        self._in_turn = recordings is not None and not backend.works_apart
        # The part of the epoch that was done before resuming, and its duration in seconds.
        self._resumed, self._before = np.empty((0, 3)), 0.0
        self._began = 0.0
        self._ahead = OrderPrefetch(backend, self.batches.own_rows) if backend.works_apart else None

    def _record(self) -> Replay:
        network, backend = self._network, self._network.backend
        capacity = self._options.part_size
        self._replay = Replay(network.model, self.batches, training=True, feed=self._feed, capacity=capacity)
        self._gradients = backend.empty((network.model.layout.trainable_size,), network.dtype)
        # The step reads the momentum from a table only if a schedule sets it, now or until a callback sets the rate.
        if self._memory.optimizer.schedule.sets_momentum:
            self._momenta = self._replay.momenta
        self._replay.record(self._make_executor)
        return self._replay

    def release(self) -> None:
        """Make the recorded step available to others; this object must no longer be used."""
        self._borrowed.release()

    def _make_executor(self, piece: Slice) -> Executor:
        """Record the step as a whole, or in two halves with the sum over all ranks in between."""
        backend, memory, gradients = self._network.backend, self._memory, self._gradients
        replay = self._replay
        recorder, rows = self._record_gradients(piece)
        half = len(recorder.calls)
        average = self.average
        options: dict[str, Any] = {
            "momenta": self._momenta,
            "clipping": self._options.clipping,
            "after_update": None if average is None else lambda step: average.record(step, replay.shares),
        }
        record_update(recorder, rows, memory, gradients, replay.rate_tables, replay.trace, **options)
        if self._communicator.size == 1:
            return backend.executor(recorder.calls)
        first = backend.executor(recorder.calls[:half]) if piece.rows else _Clear(backend, gradients)
        sums = [self._communicator.reducer(backend, gradients)]
        state = _StateAverage(self._network, self._communicator, piece.rows / piece.batch)
        if state.views:
            sums.append(state)
        return SummedExecutor(first, sums, backend.executor(recorder.calls[half:]))

    def _record_gradients(self, piece: Slice) -> tuple[Recorder, Array | None]:
        """Record the first half of a step; returns the buffer of the rows' losses, None if there are no rows."""
        replay, examples = self._replay, self._feed.examples
        if piece.rows == 0:
            return replay.recorder(piece), None
        if (size := self._options.part_size) is not None:
            return record_accumulated(replay, piece, size, examples, self._loss, self._gradients, self._augment)
        recorder = replay.recorder(piece)
        batches = (examples, replay.order, self.batches.size, self._loss)
        return recorder, record_gradients(recorder, *batches, self._gradients, self._augment)

    @property
    def executors(self) -> list[tuple[Executor, int]]:
        """For each kind of batch, the executor and the number of its steps in an epoch."""
        return self._replay.executors

    @property
    def apart(self) -> bool:
        """Whether another thread may run the epochs beside other executors."""
        return self._replay.apart

    @property
    def skipped(self) -> int:
        """Number of steps of the current epoch that were skipped."""
        return 0 if self._skipping is None else len(self._skipping.skipped)

    def resume(self, trace: npt.NDArray[np.float64], seconds: float) -> None:
        """Continue the next epoch from the result of `so_far` in another run, possibly with a different number of
        ranks.

        Parameters
        ----------
        trace : (steps that are done, 3) float64
        seconds : float
        """
        self._resumed, self._before = trace, seconds
        if self._skipping is not None:
            self._skipping.skipped = np.flatnonzero(np.isnan(trace).any(axis=1)).tolist()

    def so_far(self, done: int) -> tuple[npt.NDArray[np.float64], float]:
        """The trace of the current epoch's first `done` steps, summed over all ranks, and the seconds they took.
        All ranks must call it."""
        return self._whole_trace()[:done], self._before + time.perf_counter() - self._began

    @property
    def kind(self) -> Hashable:
        """Equal for runs whose executors can run as one; None if they cannot run with others."""
        kinds = tuple(executor.kind for executor, _ in self.executors)
        return None if None in kinds or self._skipping is not None else kinds

    def epoch(self, watch: Watch | None = None) -> EpochResult:
        """Run one epoch, or the rest of one.

        Parameters
        ----------
        watch : Watch, optional
            Observes the steps, and may end the epoch early.
        """
        return run_requests(self.requests(watch))

    def requests(self, watch: Watch | None = None) -> Requests[EpochResult]:
        """`epoch`, by a caller that may run the executors together with those of other networks."""
        network, memory = self._network, self._memory
        rate = float(self.begin()[0])
        self._began = time.perf_counter()
        if not self._in_turn:
            # Short epochs must be interruptible, too, so portions start small in each epoch.
            self._replay.portion = 1
        watched = _EpochWatch(watch or Watch(), self._communicator, self._skipping)
        steps = yield from self._replay.requests(len(self._resumed), watched)
        if self._ahead is not None:
            following = network.epochs_trained + 1
            self._ahead.send(following, order := self._draw(following), self._feed.places(order))
        # A barrier first, because missing ranks are not detected while the host waits for its GPU.
        self._communicator.barrier()
        network.backend.synchronize()
        result = self._result(steps, rate, self._before + time.perf_counter() - self._began)
        if self.average is not None:
            self.average.end_steps(steps - result.skipped)
        network.steps_trained += steps
        memory.steps += steps - result.skipped
        self._resumed, self._before = np.empty((0, 3)), 0.0
        if self._skipping is not None:
            self._skipping.skipped = []
        if steps:
            network.epochs_trained += 1
            memory.epochs += 1
        return result

    def begin(self) -> npt.NDArray[np.float64]:
        """Copy what the next epoch's steps read to the device: order, rates, counter, ...; returns the rates."""
        network, memory, replay = self._network, self._memory, self._replay
        epoch = network.epochs_trained
        if self._ahead is not None and self._ahead.epoch == epoch:
            order = self._ahead.take(replay.order)
        else:
            order = self._draw(epoch)
            replay.write_order(self._feed.places(order))
        first = len(self._resumed)
        self._feed.begin(order, epoch, first)
        rates = checked_rates(memory.optimizer.schedule, memory.epochs, self.batches.steps)
        replay.write_rates(rates)
        if self._momenta is not None:
            replay.write_momenta(memory.optimizer.epoch_momenta(memory.epochs, self.batches.steps))
        if self.average is not None:
            self.average.begin_steps()
            skipped = [] if self._skipping is None else self._skipping.skipped
            replay.write_shares(self.average.shares(self.batches.steps, skipped))
        replay.count_from(first, network.steps_trained, memory.steps - self.skipped)
        return rates

    def _draw(self, epoch: int) -> Order:
        length = self.batches.own_rows if self.batches.sharded else self.batches.rows
        return self.batches.part(epoch_order(self._network.seed, epoch, self._feed.count, length, self._shuffle))

    def _result(self, steps: int, rate: float, seconds: float) -> EpochResult:
        trace = self._whole_trace()[:steps]
        sizes = self.batches.sizes[:steps]
        rows = self.batches.rows if steps == self.batches.steps else int(sizes.sum())
        sums = trace[:, 0] + trace[:, 2]
        losses = sums / sizes
        if self.skipped:
            kept = ~np.isnan(sums)
            trace, sums, sizes = trace[kept], sums[kept], sizes[kept]
        seen = max(int(sizes.sum()) if self.skipped else rows, 1)
        loss, correct = float(sums.sum()) / seen, float(trace[:, 1].sum()) / seen
        return EpochResult(losses, loss, correct, rows, seconds, rate, self.skipped, steps < self.batches.steps)

    def _whole_trace(self) -> npt.NDArray[np.float64]:
        """The sums over each batch of the current epoch, over all ranks."""
        trace = self._replay.read_trace()
        if self._communicator.size > 1:
            # The losses are weighted with this rank's share of the batch, like the gradients.
            shares = self.batches.shares().astype(self._network.dtype).astype(np.float64)
            trace[:, 0] /= np.where(shares == 0, 1, shares)
            self._communicator.allreduce(trace)
        if self._skipping is not None:
            trace[self._skipping.skipped] = np.nan
        if len(self._resumed):
            trace[: len(self._resumed)] = self._resumed
        return trace


class _EpochWatch(Watch):
    """Makes all ranks run the same steps, and optionally skips broken ones; otherwise follows another watch."""

    def __init__(self, watch: Watch, communicator: Communicator, skipping: Skipping | None) -> None:
        self._watch, self._communicator, self._skipping = watch, communicator, skipping

    def allow(self, done: int, steps: int) -> int:
        """The number of steps that the first rank may run; 0 if any rank must stop."""
        steps = self._watch.allow(done, steps)
        if self._communicator.size == 1:
            return steps
        said = np.array([steps if self._communicator.rank == 0 else 0, steps == 0], np.int64)
        self._communicator.allreduce(said)
        return 0 if said[1] else int(said[0])

    def run(self, executor: Executor, done: int, steps: int) -> Requests[int]:
        if self._skipping is None:
            return (yield from super().run(executor, done, steps))
        # All ranks undo the same steps.
        steps = min(self._communicator.gather(steps))
        self._skipping.run(executor, done, steps)
        return steps

    def advanced(self, done: int) -> None:
        self._watch.advanced(done)

    def reached(self, done: int) -> None:
        self._watch.reached(done)

    def cut(self, done: int) -> None:
        self._watch.cut(done)


class SummedExecutor(Executor):
    """A step in two halves: gradients, sums over all ranks, and the update with the sums.

    Each half is an ordinary executor of the backend (Numba compiles both, CuPy captures both), independent of other
    ranks.

    Parameters
    ----------
    gradients : Executor
        The first half.
    sums : sequence of callables
        Replace the gradients by their sum, and state by its average.
    update : Executor
        The second half.
    """

    def __init__(self, gradients: Executor, sums: Sequence[Callable[[], None]], update: Executor) -> None:
        self.name = f"{update.name}, in two halves"
        self.reason = f"gradients are summed over all ranks in between; {update.reason}"
        self._gradients, self._sums, self._update = gradients, tuple(sums), update

    def run(self, repeats: int) -> None:
        for _ in range(repeats):
            self._gradients.run(1)
            for replace_by_sum in self._sums:
                replace_by_sum()
            self._update.run(1)


class _StateAverage:
    """Averages the state of layers, such as running statistics, over the ranks, weighted with their rows.

    The forward pass of each rank updates state with the rank's own rows. Averaging it in every step, and not only
    before the ranks are compared, lets a checkpoint hold the same state for all ranks at any step. Frozen layers keep
    their state, so it is left alone.

    Parameters
    ----------
    network : Network
    communicator : Communicator
    share : float
        This rank's share of the rows of the batch.

    Attributes
    ----------
    views : list of arrays
        The state; empty if there is none.
    """

    def __init__(self, network: Network, communicator: Communicator, share: float) -> None:
        self._network, self._communicator, self._share = network, communicator, share
        self.views: list[Array] = [
            network.model.views[f"{node.name}.{parameter.name}"]
            for top in network.model.layout.nodes
            for node in top.walk()
            for parameter in node.parameters
            if node.trainable and not parameter.trainable
        ]

    def __call__(self) -> None:
        backend = self._network.backend
        own = [backend.to_host(view) for view in self.views]
        # In float64, in which the average of equal numbers is the same number again.
        sums = np.concatenate([array.ravel() for array in own]).astype(np.float64) * self._share
        self._communicator.allreduce(sums)
        begin = 0
        for array, view in zip(own, self.views, strict=True):
            averaged = sums[begin : begin + array.size].reshape(array.shape)
            backend.write(averaged.astype(array.dtype), view)
            begin += array.size


class _Clear(Executor):
    """The first half of a step for a rank without rows: gradients of zero."""

    name = "plain"
    reason = "this rank has no rows of the batch"

    def __init__(self, backend: Backend, gradients: Array) -> None:
        self._backend, self._gradients = backend, gradients
        self._zeros = backend.empty(gradients.shape, dtype_name(gradients))

    def run(self, repeats: int) -> None:
        self._backend.copy(self._zeros, self._gradients)
