"""Runs recorded steps batch by batch: for training, evaluation, prediction and single batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Executor
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.feed import Feed
from nnbackend.data.order import Order
from nnbackend.step.recorder import Model, Recorder, Workspace
from nnbackend.support.fork_lock import cached_property

__all__ = ["Replay", "Requests", "Watch", "run_requests"]

Result = TypeVar("Result")

#: Asks for runs of an executor, each with a number of steps, one after the other; returns a result.
Requests = Generator[tuple[Executor, int], None, Result]

#: Watched steps are passed to the executor in portions of about this many seconds, to react to Ctrl-C.
_PORTION = 0.1


class Watch:
    """Observes a replay and decides when it stops. The base class never stops it."""

    def allow(self, done: int, steps: int) -> int:
        """How many of the next `steps` steps may run before `reached` is called; 0 ends the replay.

        Parameters
        ----------
        done : int
            Steps of the epoch that have run.
        steps : int
            Steps that would run now; at least 1.
        """
        return steps

    def run(self, executor: Executor, done: int, steps: int) -> Requests[int]:
        """Request up to `steps` steps, whose rows are ready; returns the number run."""
        yield executor, steps
        return steps

    def advanced(self, done: int) -> None:
        """`done` steps of the epoch have been submitted to the device."""

    def reached(self, done: int) -> None:
        """The steps that `allow` permitted have been submitted to the device, `done` in total."""

    def cut(self, done: int) -> None:
        """The replay ends after `done` steps because `allow` returned 0."""


class Replay:
    """A step that is recorded once for each kind of batch of an epoch, and run for every batch.

    It owns the arrays of a recorded step that do not belong to the network: the counter, the order of the rows, the
    learning rates and momenta, and the trace of losses. Buffers are allocated on first use.

    Parameters
    ----------
    model : Model
    batches : Batches
        The batches of an epoch.
    training : bool
        Whether layers such as dropout behave as in training.
    feed : Feed, optional
        Provides the rows. Default: they are on the device.
    capacity : int, optional
        Most rows of a recording, if it does not have all rows of a batch.

    Attributes
    ----------
    model : Model
    executors : list of (Executor, int)
        For each slice of the batches: the executor and the number of its steps. Empty before `record`.
    portion : int
        Steps between calls of the watch; doubled until a portion takes long enough.
    """

    def __init__(
        self, model: Model, batches: Batches, training: bool, feed: Feed | None = None, capacity: int | None = None
    ) -> None:
        self.batches = batches
        self.executors: list[tuple[Executor, int]] = []
        self.model, self._backend = model, model.backend
        self._training, self._feed = training, feed
        self._workspace = Workspace(self._backend, batches.size if capacity is None else capacity)
        self.portion = 1

    # ---- buffers ---------------------------------------------------------------------------------------------

    @cached_property
    def counter(self) -> Array:
        """(3,) int64: step of the epoch, steps of the network, steps of the optimiser."""
        return self._backend.empty((3,), np.int64)

    @cached_property
    def order(self) -> Array:
        """(own rows of an epoch,) int64: the position of each row in the feed's examples."""
        return self._backend.empty((self.batches.own_rows,), np.int64)

    @cached_property
    def rates(self) -> Array:
        """(steps,) float64 learning rates."""
        return self._backend.empty((self.batches.steps,), np.float64)

    @cached_property
    def rate_tables(self) -> dict[float, Array]:
        """(steps,) float64 learning rates for each learning-rate factor of the layers; `rates` has those for 1."""
        factors = dict.fromkeys(factor for factor, _, _ in self.model.layout.rate_parts)
        return {f: self.rates if f == 1 else self._backend.empty(self.rates.shape, np.float64) for f in factors}

    @cached_property
    def momenta(self) -> Array:
        """(steps,) float64 momenta, for schedules that set them."""
        return self._backend.empty((self.batches.steps,), np.float64)

    @cached_property
    def shares(self) -> Array:
        """(steps,) float64 shares of the newest weights in their moving average."""
        return self._backend.empty((self.batches.steps,), np.float64)

    @cached_property
    def trace(self) -> Array:
        """(steps, 3) float64 sums over each batch; see :meth:`nnbackend.Backend.record_loss`."""
        return self._backend.empty((self.batches.steps, 3), np.float64)

    # ---- recording -------------------------------------------------------------------------------------------

    def record(self, make_executor: Callable[[Slice], Executor]) -> None:
        """Record the step for each kind of batch.

        Parameters
        ----------
        make_executor : callable
            Called with each slice of the batches; records the step on `recorder(slice)`.
        """
        self.executors = [(make_executor(piece), piece.repeats) for piece in self.batches.slices]

    def recorder(self, piece: Slice, model: Model | None = None) -> Recorder:
        """A recorder for the batches of a slice.

        Parameters
        ----------
        piece : Slice
        model : Model, optional
            Replaces the replay's model, for example one with other penalties.
        """
        chosen = self.model if model is None else model
        return Recorder(chosen, self._workspace, piece.rows, self.counter, self._training, piece.first, piece.batch)

    @property
    def apart(self) -> bool:
        """Whether another thread may run the steps beside other executors."""
        return all(executor.apart for executor, _ in self.executors)

    def exchange(self, model: Model, feed: Feed, arrays: Sequence[tuple[Array, Array]]) -> bool:
        """Run the same steps for another network; see :meth:`nnbackend.backends.executor.Executor.exchange`."""
        self.model, self._feed = model, feed
        return all(executor.exchange(arrays, model.seed) for executor, _ in self.executors)

    # ---- running ---------------------------------------------------------------------------------------------

    def count_from(self, step: int, network_steps: int = 0, optimizer_steps: int = 0) -> None:
        """Set the counter to a step of the epoch, with the steps taken before the epoch."""
        self._backend.write(np.array([0, network_steps, optimizer_steps], np.int64) + step, self.counter)

    def write_order(self, order: Order) -> None:
        """Copy the positions of an epoch's rows to the device."""
        self._backend.write(order, self.order)

    def write_rates(self, rates: npt.NDArray[np.float64]) -> None:
        """Copy an epoch's learning rates to the device."""
        for factor, table in self.rate_tables.items():
            self._backend.write(rates * factor, table)

    def write_momenta(self, momenta: npt.NDArray[np.float64]) -> None:
        """Copy an epoch's momenta to the device."""
        self._backend.write(momenta, self.momenta)

    def write_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """Copy an epoch's shares of the newest weights to the device."""
        self._backend.write(shares, self.shares)

    def run(self, first: int = 0, watch: Watch | None = None) -> int:
        """Run the epoch's steps from `first` on; may return before the device has finished.

        Parameters
        ----------
        first : int
            The counter must be at this step, and the feed must have started with it.
        watch : Watch, optional
            Asked about ten times a second whether to continue.

        Returns
        -------
        int
            The number of steps done, including those before `first`.
        """
        return run_requests(self.requests(first, watch))

    def requests(self, first: int = 0, watch: Watch | None = None) -> Requests[int]:
        """`run`, by a caller that may run the executors together with those of other networks."""
        done, end = first, 0
        for (executor, repeats), piece in zip(self.executors, self.batches.slices, strict=True):
            end += repeats
            while done < end:
                if watch is None:
                    done = yield from self._run(executor, piece, done, end - done, _UNWATCHED)
                    continue
                steps = watch.allow(done, min(self.portion, end - done))
                if not steps:
                    watch.cut(done)
                    return done
                begin = time.perf_counter()
                done = yield from self._run(executor, piece, done, steps, watch)
                if steps == self.portion and time.perf_counter() - begin < _PORTION / 2:
                    self.portion *= 2
                watch.reached(done)
        return done

    def _run(self, executor: Executor, piece: Slice, done: int, steps: int, watch: Watch) -> Requests[int]:
        """Run steps as their rows arrive."""
        end = done + steps
        while done < end:
            now = end - done
            # A rank without rows in these batches requests none.
            if self._feed is not None and piece.rows:
                now = min(now, self._feed.ready(done))
            done += yield from watch.run(executor, done, now)
            watch.advanced(done)
        return done

    def read_trace(self) -> npt.NDArray[np.float64]:
        """The trace on the host; waits for the device."""
        trace: npt.NDArray[np.float64] = self._backend.to_host(self.trace)
        return trace


def run_requests(requests: Requests[Result]) -> Result:
    """Run the executors as requested; returns the result."""
    try:
        executor, steps = next(requests)
        while True:
            try:
                executor.run(steps)
            except BaseException as error:
                executor, steps = requests.throw(error)
            else:
                executor, steps = requests.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result


_UNWATCHED = Watch()
