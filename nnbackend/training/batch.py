"""Training by the batch: the caller brings the rows of every step and decides what comes next.

`fit` is faster, because its steps run on without the host. This is for rows that are made or arrive while training
goes on, and for rules that look at every step: `Network.snapshot` and `Network.restore` give the weights back. What the
optimiser remembers of a step stays; plain SGD remembers nothing.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import input_scale_of
from nnbackend.errors import InvalidInputError, TrainingDivergedError
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import Adam, Optimizer
from nnbackend.step.recorder import Examples, OptimizerState, Recorder, Workspace, record_training
from nnbackend.training.setup import check_weights, required_loss, take_up, weights_are_finite

__all__ = ["BatchStep", "train_on_batch"]


def train_on_batch(
    network: Network,
    x: Any,
    y: Any,
    *,
    loss: str | Loss | None = None,
    optimizer: Optimizer | None = None,
    sample_weight: Any = None,
) -> dict[str, float]:
    """Take one step on rows that the caller brings.

    Parameters
    ----------
    network : Network
    x : (n, *input_shape) array_like
    y : (n,) labels or (n, outputs) values
    loss : str, optional
        As for `fit`; not needed the second time.
    optimizer : Optimizer, optional
        The one the network was last trained with if not given, or Adam. The same object goes on where it was.
    sample_weight : (n,) array_like, optional
        Weights of the rows; only their ratios matter.

    Returns
    -------
    dict
        "loss" (penalties included), and "accuracy" or "binary_accuracy" where targets are classes: of these rows,
        before the step.

    Raises
    ------
    InvalidInputError, UnknownNameError
        Before anything is changed.
    TrainingDivergedError
        The loss is NaN or infinite. The network has the weights from before this step, or from before the last one if
        that broke them; the optimiser starts anew.

    Notes
    -----
    The step is recorded once and replayed while batches have the same number of rows, the same types and the same
    loss and optimiser. A learning-rate schedule counts epochs, and batches make none: it stands still here.
    """
    with network.in_training():
        chosen_loss = required_loss(network, loss)
        chosen_optimizer = _get_optimizer(network, optimizer)
        if network.batch_step is None:
            check_weights(network)
        rows, targets, weights = network.intake.batch(x, y, chosen_loss, sample_weight)
        memory = take_up(network, chosen_loss, chosen_optimizer)
        batch = (rows, targets.values, weights)
        step = network.batch_step
        if step is None or not step.fits(network, chosen_loss, memory, batch):
            step = network.batch_step = BatchStep(network, chosen_loss, memory, batch, step)
        loss_value, correct = step.run(network, batch)
        metrics = {"loss": loss_value}
        if targets.accuracy_name is not None:
            metrics[targets.accuracy_name] = correct
        return metrics


def _get_optimizer(network: Network, optimizer: Optimizer | None) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    if optimizer is not None:
        raise InvalidInputError(
            f"train_on_batch takes an optimiser object, such as nnbackend.Adam(1e-3), received {optimizer!r}; "
            "give the same object for every batch, or none to go on with the last"
        )
    memory = network.optimizer_state
    return Adam() if memory is None else memory.optimizer


#: Rows, targets and weights on the host.
_Batch = tuple[HostArray, HostArray, HostArray | None]


class BatchStep:
    """One training step, recorded on buffers that every batch is written to.

    Parameters
    ----------
    network : Network
    loss : Loss
    memory : OptimizerState
    batch : rows, targets and weights (or None) on the host
        The first batch; others of its kind may follow.
    previous : BatchStep, optional
        That of the batches before, which knows their weights.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        memory: OptimizerState,
        batch: _Batch,
        previous: BatchStep | None = None,
    ) -> None:
        model, backend = network.model, network.backend
        rows, targets, weights = batch
        count = len(rows)
        self._kind = _kind(network, loss, memory, batch)
        self._memory = memory
        scale = input_scale_of(rows.dtype, network.input_scale)
        self._examples = Examples.on_device(backend, rows, targets, weights, scale)
        self._counter = backend.empty((3,), np.int64)
        self._rates = backend.empty((1,), np.float64)
        self._trace = backend.empty((1, 3), np.float64)
        # The weights before this step and before the last one, to go back to if the run diverges.
        if previous is None:
            self._before, self._earlier = network.snapshot(), network.snapshot()
        else:
            self._before, self._earlier = previous._before, previous._earlier
        order = backend.from_host(np.arange(count, dtype=np.int64))
        gradients = backend.empty((model.layout.trainable_size,), model.dtype)
        recorder = Recorder(model, Workspace(backend, count), count, self._counter, training=True)
        record_training(recorder, self._examples, order, count, loss, memory, gradients, self._rates, self._trace)
        self._executor = backend.executor(recorder.calls)

    def fits(self, network: Network, loss: Loss, memory: OptimizerState, batch: _Batch) -> bool:
        """Whether this recording is also that of another batch."""
        return self._kind == _kind(network, loss, memory, batch)

    def run(self, network: Network, batch: _Batch) -> tuple[float, float]:
        """Take the step: the loss and the share of correct predictions before it."""
        backend, memory, examples = network.backend, self._memory, self._examples
        self._before, self._earlier = network.snapshot(into=self._earlier), self._before
        for array, buffer in zip(batch, (examples.x, examples.targets, examples.weights), strict=True):
            if array is not None:
                backend.write(array, buffer)
        backend.write(memory.optimizer.schedule.epoch_rates(memory.epochs, 1), self._rates)
        backend.write(np.array([0, network.steps_trained, memory.steps], np.int64), self._counter)
        self._executor.run(1)
        losses, correct, penalties = backend.to_host(self._trace)[0] / examples.count
        loss = float(losses + penalties)
        if not np.isfinite(loss):
            self._go_back(network, loss)
        network.steps_trained += 1
        memory.steps += 1
        return loss, float(correct)

    def _go_back(self, network: Network, loss: float) -> NoReturn:
        network.restore(self._before)
        step = "this step"
        if not weights_are_finite(network):
            network.restore(self._earlier)
            step = "the step before, which broke them"
        # Slots may hold what broke the weights, so the same optimiser starts anew.
        network.optimizer_state = OptimizerState.fresh(self._memory.optimizer, network.model)
        raise TrainingDivergedError(
            f"the loss of this batch is {loss}; the network has the weights from before {step}. "
            "Lower the learning rate, or scale the inputs.",
            network.epochs_trained + 1,
            network.steps_trained + 1,
        )


def _kind(network: Network, loss: Loss, memory: OptimizerState, batch: _Batch) -> tuple[Any, ...]:
    """What a recording depends on: where the parameters and slots lie, and what a batch looks like."""
    rows, targets, weights = batch
    shapes = (rows.shape, rows.dtype, targets.shape, targets.dtype, weights is None)
    return (network.model, network.input_scale, memory, memory.optimizer.rule(), loss.name, *shapes)
