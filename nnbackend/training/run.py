"""The training steps of a run: recorded once, replayed epoch by epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Executor
from nnbackend.data.feeds import Feed, Order
from nnbackend.data.order import OrderPrefetch, epoch_order
from nnbackend.distributed.communicator import Alone, Communicator
from nnbackend.distributed.slices import Slice
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.step.recorder import (
    OptimizerState,
    Recorder,
    Workspace,
    record_gradients,
    record_training,
    record_update,
)
from nnbackend.training.division import Division
from nnbackend.training.halves import Clear, SummedExecutor
from nnbackend.training.skipping import Skipping

__all__ = ["EpochResult", "TrainingRun", "Watch"]

#: Steps are handed to the executor in portions of about this many seconds, so that Ctrl-C is heard.
_PORTION = 0.1


@dataclass(eq=False, repr=False)
class EpochResult:
    """What an epoch came to.

    Attributes
    ----------
    losses : (steps,) float64
        Mean loss over each minibatch, penalties included.
    loss, correct : float
        Means over all rows seen.
    rows : int
        Rows seen; fewer than all if the epoch was interrupted.
    seconds : float
    skipped : int
        Steps that were left out; their losses are NaN, and their rows count nowhere else.
    """

    losses: npt.NDArray[np.float64]
    loss: float
    correct: float
    rows: int
    seconds: float
    skipped: int = 0


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


class TrainingRun:
    """Everything on the device that training needs, and the executors that replay its steps.

    Parameters
    ----------
    network : Network
    loss : Loss
    memory : OptimizerState
    feed : Feed
        Brings the rows.
    batch_size : int
    shuffle : bool
    steps_per_epoch : int, optional
        As many as it takes to see every row once, if not given.
    skip_broken : bool
        Whether steps that would break the network are left out.
    communicator : Communicator, optional
        The ranks that share the batches.
    shards : sequence of int, optional
        If each rank has rows of its own: how many.
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
        self._skipping: Skipping | None = None
        if skip_broken:
            self._skipping = Skipping(network, memory, self._counter, self._trace, self._communicator)
        self._gradients = backend.empty((model.layout.trainable_size,), model.dtype)
        # What was done of an epoch before the run was resumed within it, and in how many seconds.
        self._resumed, self._before = np.empty((0, 3)), 0.0
        self._began = 0.0
        self._ahead = OrderPrefetch(backend, self.batches.own_rows) if backend.works_apart else None
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

    def resume(self, trace: npt.NDArray[np.float64], seconds: float) -> None:
        """Let the coming epoch go on where `so_far` of another run said it was, whatever the number of its ranks.

        Parameters
        ----------
        trace : (steps that are done, 3) float64
        seconds : float
        """
        self._resumed, self._before = trace, seconds
        if self._skipping is not None:
            self._skipping.left_out = np.flatnonzero(np.isnan(trace).any(axis=1)).tolist()

    @property
    def skipped(self) -> int:
        """How many steps of the epoch at hand were left out."""
        return 0 if self._skipping is None else len(self._skipping.left_out)

    def so_far(self, done: int) -> tuple[npt.NDArray[np.float64], float]:
        """The trace of the steps that are done of the epoch at hand, on all ranks together, and the seconds they took.
        To be called by all ranks."""
        return self._whole_trace()[:done], self._before + time.perf_counter() - self._began

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
        # Where GPUs talk among themselves, nobody watches while the host waits for its own.
        self._communicator.barrier()
        network.backend.synchronize()
        result = self._result(steps, self._before + time.perf_counter() - self._began)
        network.steps_trained += steps
        memory.steps += steps - result.skipped
        self._resumed, self._before = np.empty((0, 3)), 0.0
        if self._skipping is not None:
            self._skipping.left_out = []
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
        first = len(self._resumed)
        self._feed.begin(order, epoch, first)
        backend.write(memory.optimizer.schedule.epoch_rates(memory.epochs, self.batches.steps), self._rates)
        counts = np.array([0, network.steps_trained, memory.steps - self.skipped], np.int64) + first
        backend.write(counts, self._counter)

    def _draw(self, epoch: int) -> Order:
        length = self.batches.own_rows if self.batches.sharded else self.rows_per_epoch
        return self.batches.part(epoch_order(self._network.seed, epoch, self._feed.count, length, self._shuffle))

    def _replay(self, stop: Callable[[], bool], progress: Callable[[int], None], watch: Watch) -> int:
        done, portion, end = len(self._resumed), 1, 0
        for (executor, repeats), piece in zip(self.executors, self.batches.slices, strict=True):
            end += repeats
            while done < end:
                steps = self._agree(0 if stop() else min(portion, end - done, watch.steps(done)))
                if not steps:
                    watch.cut(done)
                    return done
                begin = time.perf_counter()
                self._run(executor, piece, done, steps, progress)
                done += steps
                if time.perf_counter() - begin < _PORTION / 2:
                    portion *= 2
                watch.reached(done)
        return done

    def _run(self, executor: Executor, piece: Slice, done: int, steps: int, progress: Callable[[int], None]) -> None:
        """Run so many steps, as their rows come."""
        end = done + steps
        while done < end:
            # A rank whose rows are used up asks for no more.
            now = min(end - done, self._feed.ready(done)) if piece.rows else end - done
            if self._skipping is None:
                executor.run(now)
            else:
                # All ranks undo the same steps.
                now = min(self._communicator.gather(now))
                self._skipping.run(executor, done, now)
            done += now
            progress(done)

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
        losses = sums / sizes
        if self.skipped:
            kept = ~np.isnan(sums)
            trace, sums, sizes = trace[kept], sums[kept], sizes[kept]
        seen = max(int(sizes.sum()), 1)
        return EpochResult(
            losses, float(sums.sum()) / seen, float(trace[:, 1].sum()) / seen, rows, seconds, self.skipped
        )

    def _whole_trace(self) -> npt.NDArray[np.float64]:
        """The sums over each batch of the epoch at hand, those of all ranks together."""
        trace: npt.NDArray[np.float64] = self._network.backend.to_host(self._trace)
        if self._communicator.size > 1:
            # The losses were weighted with this rank's share, so that the gradients are.
            shares = self.batches.shares().astype(self._network.dtype).astype(np.float64)
            trace[:, 0] /= np.where(shares == 0, 1, shares)
            self._communicator.allreduce(trace)
        if self._skipping is not None:
            trace[self._skipping.left_out] = np.nan
        trace[: len(self._resumed)] = self._resumed
        return trace
