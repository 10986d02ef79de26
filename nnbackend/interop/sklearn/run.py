"""Epochs of training with scikit-learn's arithmetic, over all rows on the device or batch by batch.

scikit-learn's gradient of a minibatch with weights w_i is ``(sum_i w_i delta_i x_i^T + alpha W) / sum_i w_i``, where
delta is the prediction minus the target for every loss. This package's is ``f / n sum_i v_i delta_i x_i^T + l2 W``,
with n rows and a factor f of the loss. So the weights on the device are ``v_i = w_i n / (f sum w)``, computed for the
batches of every epoch, and ``l2 = alpha / n``, so a shorter last batch needs separate layers. With sample weights, the
gradient of the penalty lacks ``(alpha / sum w - alpha / n) W``. A step of plain SGD, with the gradient as parameters
and a negative rate for each step, adds it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable
from functools import partial

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Executor, HostArray
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.feed import Examples, Resident
from nnbackend.interop.sklearn.architecture import Architecture
from nnbackend.interop.sklearn.data import Rows
from nnbackend.interop.sklearn.losses import factors, poisson_constants, recorded_loss
from nnbackend.interop.sklearn.solver import Solver
from nnbackend.layers import follow_shapes
from nnbackend.network import Network
from nnbackend.step.parameters import ParameterLayout
from nnbackend.step.recorder import Model, Recorder, record_training
from nnbackend.step.recordings import Borrowed, Recordings
from nnbackend.step.replay import Replay, Requests, Watch, run_requests

__all__ = ["BatchRun", "BatchSteps", "EpochRun"]

#: Number of recordings that are kept for batches of different sizes.
_KEPT = 256


class _Recording:
    """What steps over all rows and over single batches have in common.

    Parameters
    ----------
    network : Network
        With the slots of the solver's optimiser in its `optimizer_state`.
    architecture : Architecture
    solver : Solver
    alpha : float
        Strength of the L2 penalty.
    steps : int
        Number of steps that run without the host.
    """

    _replay: Replay

    def __init__(self, network: Network, architecture: Architecture, solver: Solver, alpha: float, steps: int) -> None:
        backend, memory = network.backend, network.optimizer_state
        assert memory is not None
        self.network, self.solver = network, solver
        self.loss_name = architecture.loss
        self._alpha, self._architecture, self._memory = alpha, architecture, memory
        self.gradient_factor, self._loss_factor = factors(architecture.loss, architecture.outputs)
        self._corrections = backend.empty((steps,), np.float64)

    def _new_replay(self, batches: Batches) -> Replay:
        network = self.network
        self._gradients = network.backend.empty((network.model.layout.trainable_size,), network.dtype)
        return Replay(network.model, batches, training=True)

    def _record(self, piece: Slice, examples: Examples, batch_size: int, weighted: bool) -> Executor:
        """Record the step for batches of `piece.rows` rows; `weighted` rows have weights of their own."""
        backend, replay, gradients = self.network.backend, self._replay, self._gradients
        model = _with_penalty(self.network.model, self._architecture, self._alpha / piece.rows)
        pairs = []
        if weighted:
            places = [(entry.offset, (entry.size,)) for entry in model.layout.regularised]
            pairs = [(backend.view(gradients, *at), backend.view(model.parameters, *at)) for at in places]
        recorder = replay.recorder(piece, model)
        loss = recorded_loss(self._architecture.loss, backend)
        record_training(
            recorder, examples, replay.order, batch_size, loss, self._memory, gradients,
            replay.rate_tables, replay.trace, partial(self._record_corrections, pairs),
        )  # fmt: skip
        return backend.executor(recorder.calls)

    def _record_corrections(self, pairs: list[tuple[Array, Array]], recorder: Recorder) -> None:
        """Record ``gradient += correction[step] * weight`` for pairs of flat buffers.

        The corrections have the opposite sign, because an update subtracts.
        """
        for gradient, weight in pairs:
            plain_sgd = {"velocity": None, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
            recorder.record(
                "sgd_update",
                parameters=gradient,
                gradients=weight,
                counter=recorder.counter,
                learning_rates=self._corrections,
                **plain_sgd,
            )

    def epoch_weights(
        self, weights: npt.NDArray[np.float64], batch_size: int
    ) -> tuple[HostArray, HostArray, HostArray]:
        """The weights of an epoch's rows on the device, n / sum w of each batch, and the corrections of the penalty.

        Parameters
        ----------
        weights : (n,) float64
            In the order of the epoch.
        batch_size : int
        """
        starts = np.arange(0, len(weights), batch_size)
        counts = np.diff(starts, append=len(weights))
        sums = np.add.reduceat(weights, starts)
        # A batch whose weights are all 0 is a step without a gradient.
        shares: HostArray = np.divide(counts, sums, out=np.zeros(len(sums)), where=sums > 0)
        scaled = (weights * np.repeat(shares * self.gradient_factor, counts)).astype(self.network.dtype)
        return scaled, shares, self._alpha / counts * (1 - shares)

    def loss(self, trace: HostArray, shares: float | HostArray, rows: int, constant: float) -> float:
        """scikit-learn's `loss_` of an epoch, including penalties."""
        return (float((trace[:, 0] * self._loss_factor + trace[:, 2] * shares).sum()) + constant) / rows

    def gradients(self) -> HostArray:
        """The flat buffer of the last step's gradients, read from the device."""
        gradients: HostArray = self.network.backend.to_host(self._gradients)
        return gradients


class EpochRun(_Recording):
    """Training steps over rows that are all on the device, recorded once and replayed in every epoch.

    Parameters
    ----------
    network, architecture, solver, alpha
        As for `_Recording`.
    rows : Rows
        Dense. A device that uses host memory reads them where they are.
    batch_size : int
        At most the number of rows.
    recordings : Recordings, optional
        May have a recorded step.
    """

    def __init__(
        self,
        network: Network,
        architecture: Architecture,
        solver: Solver,
        alpha: float,
        rows: Rows,
        batch_size: int,
        recordings: Recordings | None = None,
    ) -> None:
        self._batches = Batches(len(rows), batch_size)
        super().__init__(network, architecture, solver, alpha, self._batches.steps)
        self._rows, self._examples = rows, self._on_device(rows)
        self._constants = poisson_constants(architecture.loss, rows.targets)
        #: The order that is on the device.
        self._order_there: HostArray | None = None
        memory = self._memory
        self._borrowed = Borrowed(
            recordings,
            network.model,
            Resident(self._examples),
            self._batches,
            # Everything else that `_record` uses must be here.
            (
                ("estimator", architecture.loss, alpha, rows.weights is None),
                (type(memory.optimizer), memory.optimizer.rule(), tuple(memory.slots)),
            ),
            [*memory.slots.values(), self._corrections],
            self._recorded,
        )
        self._replay = self._borrowed.replay

    def _on_device(self, rows: Rows) -> Examples:
        backend, dtype = self.network.backend, self.network.dtype
        weighted = rows.weights is not None or self.gradient_factor != 1
        return Examples(
            x=rows.on_device.rows(backend, rows.x),
            targets=backend.from_host(rows.spread(rows.targets)),
            target_dtype=rows.targets.dtype,
            weights=backend.from_host(np.full(rows.x.shape[0], self.gradient_factor, dtype)) if weighted else None,
            count=len(rows),
            scale=1.0,
        )

    def _recorded(self) -> Replay:
        self._replay = self._new_replay(self._batches)
        weighted = self._rows.weights is not None
        self._replay.record(lambda piece: self._record(piece, self._examples, self._batches.size, weighted))
        return self._replay

    def release(self) -> None:
        """Make the recorded step available to others; this object must no longer be used."""
        self._borrowed.release()

    @property
    def apart(self) -> bool:
        """Whether another thread may run the epochs beside other executors."""
        return self._replay.apart

    @property
    def executor(self) -> Executor:
        """Runs the full batches."""
        return self._replay.executors[0][0]

    @property
    def kind(self) -> Hashable:
        """As of :class:`nnbackend.training.run.TrainingRun`."""
        kinds = tuple(executor.kind for executor, _ in self._replay.executors)
        return None if None in kinds else kinds

    def epoch(self, order: npt.NDArray[np.int64], watch: Watch) -> float | None:
        """Run an epoch.

        Parameters
        ----------
        order : (n,) int64
            The order of the rows; passing the same array object again means the same order.
        watch : Watch
            May end the epoch early.

        Returns
        -------
        float or None
            scikit-learn's `loss_`, including penalties; None if the epoch was ended early.
        """
        return run_requests(self.requests(order, watch))

    def requests(self, order: npt.NDArray[np.int64], watch: Watch) -> Requests[float | None]:
        """`epoch`, by a caller that may run the executors together with those of other networks."""
        network, replay = self.network, self._replay
        if order is not self._order_there:
            replay.write_order(self._rows.in_table(order))
            self._order_there = order
        shares = self._write_weights(order)
        replay.write_rates(self.solver.rates(self._batches.steps))
        replay.count_from(0, network.steps_trained, self.solver.step_counter)
        steps = yield from replay.requests(watch=watch)
        network.steps_trained += steps
        self.solver.steps += steps
        if steps < self._batches.steps:
            return None
        network.epochs_trained += 1
        constant = _sum_of_constants(self._constants, self._rows.weights, order, shares, self._batches.size)
        return self.loss(replay.read_trace(), shares, self._examples.count, constant)

    def _write_weights(self, order: npt.NDArray[np.int64]) -> float | HostArray:
        """Copy the sample weights of an epoch to the device; returns n / sum w of every batch."""
        if self._rows.weights is None:
            return 1.0
        scaled, shares, corrections = self.epoch_weights(self._rows.weights[order], self._batches.size)
        placed = np.empty_like(scaled)
        placed[order] = scaled
        self.network.backend.write(self._rows.spread(placed), self._examples.weights)
        self.network.backend.write(corrections, self._corrections)
        return shares


class BatchSteps(_Recording):
    """A training step for batches of any size up to a capacity, on buffers to which the rows of a batch are copied.

    So only one batch is on the device, and of a sparse matrix only one batch is dense. The step is recorded once for
    each number of rows.

    Parameters
    ----------
    network, architecture, solver, alpha
        As for `_Recording`.
    rows : Rows
        The first rows; later ones have as many features and outputs.
    capacity : int
        The most rows of a batch.
    """

    def __init__(
        self, network: Network, architecture: Architecture, solver: Solver, alpha: float, rows: Rows, capacity: int
    ) -> None:
        super().__init__(network, architecture, solver, alpha, 1)
        backend, dtype = network.backend, network.dtype
        self._replay = self._new_replay(Batches(capacity, capacity))
        self.capacity = capacity
        self._parameters = network.model.parameters
        self._x = backend.empty((capacity * rows.x.shape[1],), dtype)
        self._target_shape, self._target_dtype = rows.targets.shape[1:], rows.targets.dtype
        self._targets = backend.empty((capacity * math.prod(self._target_shape),), self._target_dtype)
        self._weights = backend.empty((capacity,), dtype)
        self._replay.write_order(np.arange(capacity, dtype=np.int64))
        #: By number of rows, and whether they have weights of their own; the last used one is at the end.
        self._recorded: dict[tuple[int, bool], tuple[Executor, Examples]] = {}

    def fits(self, network: Network, architecture: Architecture, alpha: float, batch_size: int) -> bool:
        """Whether these recordings can be used for rows of the same network."""
        here = network is self.network and network.optimizer_state is self._memory
        # A network that was moved to another backend has new buffers.
        there = network.model.parameters is self._parameters
        return (
            here
            and there
            and (architecture, alpha) == (self._architecture, self._alpha)
            and (batch_size <= self.capacity)
        )

    def recorded(self, count: int, weighted: bool) -> tuple[Executor, Examples]:
        """The step for `count` rows, and views of the buffers for them."""
        found = self._recorded.pop((count, weighted), None)
        if found is None:
            if len(self._recorded) == _KEPT:
                del self._recorded[next(iter(self._recorded))]
            view, features = self.network.backend.view, self.network.input_shape[0]
            constant = weighted or self.gradient_factor != 1
            examples = Examples(
                x=view(self._x, 0, (count, features)),
                targets=view(self._targets, 0, (count, *self._target_shape)),
                target_dtype=self._target_dtype,
                weights=view(self._weights, 0, (count,)) if constant else None,
                count=count,
                scale=1.0,
            )
            found = self._record(Slice(count, 0, count, 1), examples, count, weighted), examples
        self._recorded[count, weighted] = found
        return found

    def run(self, rows: Rows, places: npt.NDArray[np.int64], weights: HostArray | None, correction: float) -> HostArray:
        """Take a step on the rows with these numbers; returns its line of the trace.

        Parameters
        ----------
        rows : Rows
        places : (count,) int64
        weights : (count,) array or None
            The weights on the device.
        correction : float
            Of the penalty.
        """
        network, backend, replay = self.network, self.network.backend, self._replay
        executor, examples = self.recorded(len(places), weights is not None)
        x = examples.x
        dense = x if isinstance(x, np.ndarray) else np.empty((len(places), rows.x.shape[1]), network.dtype)
        rows.read(places, dense)
        if dense is not x:
            backend.write(dense, x)
        backend.write(rows.targets[places], examples.targets)
        if weights is not None:
            backend.write(weights, examples.weights)
            backend.write(np.array([correction]), self._corrections)
        elif examples.weights is not None:
            backend.write(np.full(len(places), self.gradient_factor, network.dtype), examples.weights)
        replay.count_from(0, network.steps_trained, self.solver.step_counter)
        replay.write_rates(self.solver.rates(1))
        executor.run(1)
        network.steps_trained += 1
        self.solver.steps += 1
        line: HostArray = replay.read_trace()[0]
        return line

    def mean_loss(self, rows: Rows, places: npt.NDArray[np.int64]) -> float:
        """Take a step on the rows with these numbers; returns scikit-learn's loss of them, including penalties."""
        weights: HostArray | None = None
        shares: float | HostArray = 1.0
        correction, count = 0.0, len(places)
        given = None if rows.weights is None else rows.weights[places]
        if given is not None:
            weights, shares, corrections = self.epoch_weights(given, count)
            correction = float(corrections[0])
        trace = self.run(rows, places, weights, correction)[None]
        constants = poisson_constants(self.loss_name, rows.targets[places])
        return self.loss(trace, shares, count, _sum_of_constants(constants, given, np.arange(count), shares, count))


class BatchRun:
    """Epochs over some rows, batch by batch.

    Parameters
    ----------
    steps : BatchSteps
    rows : Rows
    batch_size : int
        At most the capacity of the steps.
    """

    def __init__(self, steps: BatchSteps, rows: Rows, batch_size: int) -> None:
        self._steps, self._rows, self._batch_size = steps, rows, batch_size
        self._constants = poisson_constants(steps.loss_name, rows.targets)

    #: Each batch is prepared from Python.
    apart, kind = False, None

    def release(self) -> None:
        """As of `EpochRun`; nothing to do."""

    @property
    def executor(self) -> Executor:
        """Runs the full batches."""
        return self._steps.recorded(self._batch_size, self._rows.weights is not None)[0]

    def epoch(self, order: npt.NDArray[np.int64], watch: Watch) -> float | None:
        """Run an epoch; see `EpochRun.epoch`."""
        steps, rows, size = self._steps, self._rows, self._batch_size
        weights: HostArray | None = None
        shares: float | HostArray = 1.0
        corrections = np.zeros(-(-len(order) // size))
        if rows.weights is not None:
            weights, shares, corrections = steps.epoch_weights(rows.weights[order], size)
        trace = np.empty((len(corrections), 3))
        for step, correction in enumerate(corrections):
            if not watch.allow(step, 1):
                return None
            part = slice(step * size, (step + 1) * size)
            trace[step] = steps.run(rows, order[part], None if weights is None else weights[part], float(correction))
        steps.network.epochs_trained += 1
        constant = _sum_of_constants(self._constants, rows.weights, order, shares, size)
        return steps.loss(trace, shares, len(order), constant)


def _with_penalty(model: Model, architecture: Architecture, l2: float) -> Model:
    """A model that shares the parameters, with this penalty."""
    layers = architecture.layers(l2)
    shapes, _ = follow_shapes(layers, (architecture.units[0],))
    layout = ParameterLayout(layers, shapes, model.backend.row_multiple)
    return dataclasses.replace(model, layers=layers, layout=layout)


def _sum_of_constants(
    constants: HostArray | None,
    weights: HostArray | None,
    order: npt.NDArray[np.int64],
    shares: float | HostArray,
    batch_size: int,
) -> float:
    """The sum of what an epoch's rows add to the loss whatever the network is, with the weights of their batches."""
    if constants is None:
        return 0.0
    if weights is None:
        return float(constants.sum())
    each = np.repeat(shares, batch_size)[: len(order)]
    return float(each @ (weights * constants)[order])
