"""Epochs over rows on the device, with scikit-learn's arithmetic.

scikit-learn's gradient of a minibatch with weights w_i is ``(sum_i w_i delta_i x_i^T + alpha W) / sum_i w_i``, where
delta is the prediction minus the target for every loss. This package's is ``f / n sum_i v_i delta_i x_i^T + l2 W``,
with n rows and a factor f of the loss. So the weights on the device are ``v_i = w_i n / (f sum w)``, computed for the
batches of every epoch, and ``l2 = alpha / n``, so a shorter last batch needs separate layers. With sample weights, the
gradient of the penalty lacks ``(alpha / sum w - alpha / n) W``. A step of plain SGD, with the gradient as parameters
and a negative rate for each step, adds it.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Executor, HostArray
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.feed import Examples
from nnbackend.interop.sklearn.architecture import Architecture
from nnbackend.interop.sklearn.solver import Solver
from nnbackend.layers import follow_shapes
from nnbackend.losses import get_loss
from nnbackend.network import Network
from nnbackend.step.parameters import ParameterLayout
from nnbackend.step.recorder import Model, Recorder, record_training
from nnbackend.step.replay import Replay, Watch

__all__ = ["EpochRun", "Rows"]


@dataclasses.dataclass(eq=False)
class Rows:
    """Rows to train on, on the host.

    Attributes
    ----------
    x : (n, features) array of the network's dtype
    targets : (n,) int32 or (n, outputs) array of the network's dtype
    weights : (n,) float64 or None
    """

    x: HostArray
    targets: HostArray
    weights: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.x)

    def kind(self) -> tuple[Any, ...]:
        """Identifies rows that fit into the same buffers."""
        return self.x.shape, self.targets.shape, self.weights is None


class EpochRun:
    """Training steps that are recorded once and replayed in every epoch.

    Parameters
    ----------
    network : Network
        With the slots of the solver's optimiser in its `optimizer_state`.
    architecture : Architecture
    solver : Solver
    alpha : float
        Strength of the L2 penalty.
    rows : Rows
    batch_size : int
        At most the number of rows.
    """

    def __init__(
        self, network: Network, architecture: Architecture, solver: Solver, alpha: float, rows: Rows, batch_size: int
    ) -> None:
        backend, memory = network.backend, network.optimizer_state
        assert memory is not None
        self._network, self._solver, self._alpha = network, solver, alpha
        self._memory, self._parameters = memory, network.model.parameters
        self._kind = (architecture, alpha, batch_size, rows.kind())
        self._batches = Batches(len(rows), batch_size)
        self._gradient_factor, self._loss_factor = _factors(architecture)
        self._row_weights = rows.weights

        weighted = rows.weights is not None or self._gradient_factor != 1
        constant = np.full(len(rows), self._gradient_factor, network.dtype) if weighted else None
        self._examples = Examples.on_device(backend, rows.x, rows.targets, constant, 1.0)
        self._corrections = backend.empty((self._batches.steps,), np.float64)
        self._gradients = backend.empty((network.model.layout.trainable_size,), network.dtype)
        #: The order that is on the device.
        self._order_there: HostArray | None = None
        self._replay = Replay(network.model, self._batches, training=True)
        self._replay.record(partial(self._make_executor, architecture))

    def _make_executor(self, architecture: Architecture, piece: Slice) -> Executor:
        backend, replay, gradients = self._network.backend, self._replay, self._gradients
        model = _with_penalty(self._network.model, architecture, self._alpha / piece.rows)
        pairs = []
        if self._row_weights is not None:
            places = [(entry.offset, (entry.size,)) for entry in model.layout.regularised]
            pairs = [(backend.view(gradients, *at), backend.view(model.parameters, *at)) for at in places]
        recorder = replay.recorder(piece, model)
        record_training(
            recorder, self._examples, replay.order, self._batches.size, get_loss(architecture.loss), self._memory,
            gradients, replay.rates, replay.trace, partial(self._record_corrections, pairs),
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

    @property
    def executor(self) -> Executor:
        """Runs the full batches."""
        return self._replay.executors[0][0]

    def fits(self, network: Network, architecture: Architecture, alpha: float, rows: Rows, batch_size: int) -> bool:
        """Whether this recording can be used for other rows of the same network."""
        here = network is self._network and network.optimizer_state is self._memory
        # A network that was moved to another backend has new buffers.
        there = network.model.parameters is self._parameters
        return here and there and self._kind == (architecture, alpha, batch_size, rows.kind())

    def load(self, rows: Rows) -> None:
        """Replace the rows with others of the same kind."""
        backend, examples = self._network.backend, self._examples
        backend.write(rows.x, examples.x)
        backend.write(rows.targets, examples.targets)
        self._row_weights = rows.weights

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
        network, replay = self._network, self._replay
        if order is not self._order_there:
            replay.write_order(order)
            self._order_there = order
        shares = self._write_weights(order)
        replay.write_rates(self._solver.rates(self._batches.steps))
        replay.count_from(0, network.steps_trained, self._solver.step_counter)
        steps = replay.run(watch=watch)
        network.steps_trained += steps
        self._solver.steps += steps
        if steps < self._batches.steps:
            return None
        network.epochs_trained += 1
        trace = replay.read_trace()
        return float((trace[:, 0] * self._loss_factor + trace[:, 2] * shares).sum()) / self._examples.count

    def _write_weights(self, order: npt.NDArray[np.int64]) -> float | HostArray:
        """Copy the sample weights of an epoch to the device; returns n / sum w of every batch."""
        if self._row_weights is None:
            return 1.0
        backend, weights = self._network.backend, self._row_weights[order]
        starts = np.arange(0, len(order), self._batches.size)
        counts = np.diff(starts, append=len(order))
        sums = np.add.reduceat(weights, starts)
        # A batch whose weights are all 0 is a step without a gradient.
        shares: HostArray = np.divide(counts, sums, out=np.zeros(len(sums)), where=sums > 0)
        scaled = np.empty(len(order), self._network.dtype)
        scaled[order] = weights * np.repeat(shares * self._gradient_factor, counts)
        backend.write(scaled, self._examples.weights)
        backend.write(self._alpha / counts * (1 - shares), self._corrections)
        return shares


def _with_penalty(model: Model, architecture: Architecture, l2: float) -> Model:
    """A model that shares the parameters, with this penalty."""
    layers = architecture.layers(l2)
    shapes, _ = follow_shapes(layers, (architecture.units[0],))
    layout = ParameterLayout(layers, shapes, model.backend.row_multiple)
    return dataclasses.replace(model, layers=layers, layout=layout)


def _factors(architecture: Architecture) -> tuple[float, float]:
    """1 / f, and the factor that converts this package's loss with such weights to scikit-learn's.

    scikit-learn sums cross-entropy over several outputs, this package averages it. For squared errors, scikit-learn
    takes the gradient of half their sum over the outputs, and reports half their mean.
    """
    if architecture.loss == "mean_squared_error":
        return architecture.outputs / 2, 1 / architecture.outputs
    return (architecture.outputs if architecture.loss == "sigmoid_cross_entropy" else 1.0), 1.0
