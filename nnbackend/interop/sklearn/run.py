"""Epochs over rows that lie on the device, with scikit-learn's arithmetic.

scikit-learn's gradient of a minibatch with weights w_i is ``(sum_i w_i delta_i x_i^T + alpha W) / sum_i w_i``, delta
being the prediction less the target whatever the loss. This package's is ``f / n sum_i v_i delta_i x_i^T + l2 W``, with
n rows and a factor f of the loss. So the weights ``v_i = w_i n / (f sum w)`` are those on the device, reckoned anew for
every epoch's batches, and ``l2 = alpha / n``, which makes layers of their own for a shorter last batch. Where rows have
weights, what the penalty's gradient lacks, ``(alpha / sum w - alpha / n) W``, is added by an operation that takes a
factor for every step from the device: a step of plain SGD, with the gradient for parameters and a negative rate.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Executor, HostArray
from nnbackend.interop.sklearn.architecture import Architecture
from nnbackend.interop.sklearn.solver import Solver
from nnbackend.layers import follow_shapes
from nnbackend.losses import get_loss
from nnbackend.network import Network
from nnbackend.step.evaluation import Batches
from nnbackend.step.parameters import ParameterLayout
from nnbackend.step.recorder import Examples, Model, Recorder, Workspace, record_training

__all__ = ["EpochRun", "Rows"]

#: Steps are handed to the executor in portions of about this many seconds, so that Ctrl-C is heard.
_PORTION = 0.1


@dataclasses.dataclass(eq=False)
class Rows:
    """What to train on, on the host.

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
        """Rows of the same kind fit into the same buffers."""
        return self.x.shape, self.targets.shape, self.weights is None


class EpochRun:
    """Training steps recorded once, and replayed epoch by epoch.

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
        At most as many as there are rows.
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
        self._counter = backend.empty((3,), np.int64)
        self._order = backend.empty((len(rows),), np.int64)
        self._rates = backend.empty((self._batches.steps,), np.float64)
        self._corrections = backend.empty((self._batches.steps,), np.float64)
        self._trace = backend.empty((self._batches.steps, 3), np.float64)
        #: The order that lies on the device.
        self._order_there: HostArray | None = None
        self._portion = 1
        self._executors = self._record(architecture, batch_size)

    def _record(self, architecture: Architecture, batch_size: int) -> list[tuple[Executor, int]]:
        network, backend = self._network, self._network.backend
        gradients = backend.empty((network.model.layout.trainable_size,), network.dtype)
        workspace = Workspace(backend, batch_size)
        executors = []
        for rows, repeats in self._batches.kinds:
            model = _with_penalty(network.model, architecture, self._alpha / rows)
            pairs = []
            if self._row_weights is not None:
                places = [(entry.offset, (entry.size,)) for entry in model.layout.regularised]
                pairs = [(backend.view(gradients, *at), backend.view(model.parameters, *at)) for at in places]
            recorder = Recorder(model, workspace, rows, self._counter, training=True)
            loss = get_loss(architecture.loss)
            record_training(
                recorder, self._examples, self._order, batch_size, loss, self._memory, gradients, self._rates,
                self._trace, partial(self._record_corrections, pairs),
            )  # fmt: skip
            executors.append((backend.executor(recorder.calls), repeats))
        return executors

    def _record_corrections(self, pairs: list[tuple[Array, Array]], recorder: Recorder) -> None:
        """Record ``gradient += correction[step] * weight`` for pairs of flat buffers.

        The corrections have their signs turned, as an update subtracts.
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
        """What replays the full batches."""
        return self._executors[0][0]

    def fits(self, network: Network, architecture: Architecture, alpha: float, rows: Rows, batch_size: int) -> bool:
        """Whether this recording is also that of other rows of the same network."""
        here = network is self._network and network.optimizer_state is self._memory
        # A network that was moved has other buffers.
        there = network.model.parameters is self._parameters
        return here and there and self._kind == (architecture, alpha, batch_size, rows.kind())

    def load(self, rows: Rows) -> None:
        """Put other rows of the same kind into the place of those that are there."""
        backend, examples = self._network.backend, self._examples
        backend.write(rows.x, examples.x)
        backend.write(rows.targets, examples.targets)
        self._row_weights = rows.weights

    def epoch(self, order: npt.NDArray[np.int64], stop: Callable[[], bool]) -> float | None:
        """See every row once.

        Parameters
        ----------
        order : (n,) int64
            The rows' order; the same array again stands for the same order.
        stop : callable
            Asked every tenth of a second or so whether to end the epoch after the step at hand.

        Returns
        -------
        float or None
            scikit-learn's `loss_`, penalties included; None if the epoch was ended early.
        """
        network, backend = self._network, self._network.backend
        if order is not self._order_there:
            backend.write(order, self._order)
            self._order_there = order
        shares = self._write_weights(order)
        backend.write(self._solver.rates(self._batches.steps), self._rates)
        backend.write(np.array([0, network.steps_trained, self._solver.step_counter], np.int64), self._counter)
        steps = self._replay(stop)
        network.steps_trained += steps
        self._solver.steps += steps
        if steps < self._batches.steps:
            return None
        network.epochs_trained += 1
        trace = backend.to_host(self._trace)
        return float((trace[:, 0] * self._loss_factor + trace[:, 2] * shares).sum()) / self._examples.count

    def _write_weights(self, order: npt.NDArray[np.int64]) -> float | HostArray:
        """Bring the weights of an epoch to the device; returns n / sum w of every batch."""
        if self._row_weights is None:
            return 1.0
        backend, weights = self._network.backend, self._row_weights[order]
        starts = np.arange(0, len(order), self._batches.size)
        counts = np.diff(starts, append=len(order))
        sums = np.add.reduceat(weights, starts)
        # A batch whose rows all weigh nothing is one step without a gradient.
        shares: HostArray = np.divide(counts, sums, out=np.zeros(len(sums)), where=sums > 0)
        scaled = np.empty(len(order), self._network.dtype)
        scaled[order] = weights * np.repeat(shares * self._gradient_factor, counts)
        backend.write(scaled, self._examples.weights)
        backend.write(self._alpha / counts * (1 - shares), self._corrections)
        return shares

    def _replay(self, stop: Callable[[], bool]) -> int:
        done = 0
        for executor, repeats in self._executors:
            left = repeats
            while left and not stop():
                begin = time.perf_counter()
                steps = min(self._portion, left)
                executor.run(steps)
                left -= steps
                done += steps
                if steps == self._portion and time.perf_counter() - begin < _PORTION / 2:
                    self._portion *= 2
        return done


def _with_penalty(model: Model, architecture: Architecture, l2: float) -> Model:
    """The same parameters under layers with this penalty."""
    layers = architecture.layers(l2)
    shapes, _ = follow_shapes(layers, (architecture.units[0],))
    layout = ParameterLayout(layers, shapes, model.backend.row_multiple)
    return dataclasses.replace(model, layers=layers, layout=layout)


def _factors(architecture: Architecture) -> tuple[float, float]:
    """1 / f, and what makes scikit-learn's loss of this package's after the rows were weighted with that.

    Cross-entropy is summed over several outputs there and averaged here. Of squared errors, scikit-learn takes the
    gradient of half their sum over the outputs, and shows half their mean.
    """
    if architecture.loss == "mean_squared_error":
        return architecture.outputs / 2, 1 / architecture.outputs
    return (architecture.outputs if architecture.loss == "sigmoid_cross_entropy" else 1.0), 1.0
