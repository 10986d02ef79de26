"""Training batch by batch, with rows that the caller provides for every step.

`fit` is faster, because its steps run without the host. This is for rows that are generated or arrive during training,
and for algorithms that examine every step. `Network.snapshot` and `Network.restore` undo a step, except for the
optimiser's state (plain SGD has none).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from nnbackend.augment import Augmentation
from nnbackend.backends.contract import Executor, HostArray
from nnbackend.data.batches import Batches, Slice
from nnbackend.data.feed import Examples
from nnbackend.errors import InvalidInputError, TrainingDivergedError, shown
from nnbackend.losses import Loss, smoothed
from nnbackend.network import Network
from nnbackend.optimizers import Adam, Optimizer, check_not_class
from nnbackend.schedules import OneCycle, checked_rates
from nnbackend.step.augmentation import check_augmentations
from nnbackend.step.options import StepOptions, check_step_options
from nnbackend.step.recorder import OptimizerState, record_training
from nnbackend.step.replay import Replay
from nnbackend.support.surroundings import own_error_state
from nnbackend.training.decisions import decided_if_trained, describe_inputs, memory_for, take_up
from nnbackend.training.divergence import advice, broken_slot, check_weights, weights_are_finite
from nnbackend.training.plan import required_loss, warn_of_large_targets

__all__ = ["BatchStep", "train_on_batch"]


_PLAIN = StepOptions()


def train_on_batch(
    network: Network,
    x: Any,
    y: Any,
    *,
    loss: str | Loss | None = None,
    optimizer: Optimizer | None = None,
    sample_weight: Any = None,
    label_smoothing: float = 0.0,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    augment: Augmentation | Sequence[Augmentation] = (),
) -> dict[str, float]:
    """Take one step on some rows; :meth:`nnbackend.Network.train_on_batch` documents the parameters and errors.

    Parameters
    ----------
    network : Network
    x, y, loss, optimizer, sample_weight, label_smoothing, clip_norm, clip_value, augment
        As for :meth:`nnbackend.Network.train_on_batch`.

    Returns
    -------
    dict
    """
    with own_error_state(), network.in_training():
        chosen_loss = required_loss(network, loss)
        training_loss = smoothed(chosen_loss, label_smoothing)
        options = check_step_options(clip_norm, clip_value, 1, None)
        chosen_optimizer = _get_optimizer(network, optimizer)
        _check_schedule(chosen_optimizer)
        augmentations = check_augmentations(augment, network.layers, network.input_shape)
        if network.batch_step is None:
            check_weights(network)
        intake = network.intake
        given = intake.rows(x)
        rows, targets, weights = intake.batch(given, y, chosen_loss, sample_weight)
        memory = memory_for(network, chosen_optimizer)
        batch = (rows, targets.values, weights)
        kind = (given.scale, targets.counts_rows(chosen_loss), augmentations, options)
        step = network.batch_step
        if step is None or not step.fits(network, training_loss, memory, batch, *kind):
            step = network.batch_step = BatchStep(network, training_loss, memory, batch, *kind, step)
        with decided_if_trained(network):
            take_up(network, chosen_loss, targets.kind == "multilabel", memory, options)
            if network.trained_with is None:
                warn_of_large_targets(targets.largest)
                kinds = targets.describe(math.prod(network.output_shape))
                describe_inputs(network, given.describe(intake.scale, kinds), given.scale)
            loss_value, correct = step.run(network, batch, targets.largest)
        metrics = {"loss": loss_value}
        if targets.accuracy_name is not None:
            metrics[targets.accuracy_name] = correct
        return metrics


def _get_optimizer(network: Network, optimizer: Optimizer | None) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    check_not_class(optimizer)
    if optimizer is not None:
        raise InvalidInputError(
            f"train_on_batch takes an optimiser object, such as nnbackend.Adam(1e-3), received {optimizer!r}; "
            "give the same object for every batch, or none to continue with the last one"
        )
    memory = network.optimizer_state
    return Adam() if memory is None else memory.optimizer


def _check_schedule(optimizer: Optimizer) -> None:
    """Refuse a cycle: other schedules are constant between epochs, but its values depend on the number of steps."""
    schedule = optimizer.schedule
    if isinstance(schedule, OneCycle) or schedule.sets_momentum:
        raise InvalidInputError(
            f"train_on_batch takes single steps, and {shown(schedule)} needs to know how many there will be: train "
            "with fit, or give an optimizer with another learning rate, such as nnbackend.Adam(1e-3)"
        )


#: Rows, targets and weights on the host.
_Batch = tuple[HostArray, HostArray, HostArray | None]


class BatchStep:
    """A training step, recorded on buffers to which every batch is copied.

    Parameters
    ----------
    network : Network
    loss : Loss
    memory : OptimizerState
    batch : rows, targets and weights (or None) on the host
        The first batch; later ones must be of the same kind.
    scale : float
        Factor on the rows.
    by_class : bool
        As in `Examples`.
    augment : tuple of Augmentation
        Applied to the rows.
    options : StepOptions
        For one batch, without an average.
    previous : BatchStep, optional
        The step of earlier batches, which has the weights from before them.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        memory: OptimizerState,
        batch: _Batch,
        scale: float,
        by_class: bool,
        augment: tuple[Augmentation, ...] = (),
        options: StepOptions = _PLAIN,
        previous: BatchStep | None = None,
    ) -> None:
        model, backend = network.model, network.backend
        rows, targets, weights = batch
        count = len(rows)
        self._kind = _kind(network, loss, memory, batch, scale, by_class, augment, options)
        self._memory = memory
        examples = self._examples = Examples.on_device(backend, rows, targets, weights, scale)
        examples.by_class = by_class
        # The weights before this step and before the previous one, to restore if the run diverges.
        if previous is None:
            self._before, self._earlier = network.snapshot(), network.snapshot()
        else:
            self._before, self._earlier = previous._before, previous._earlier
        gradients = backend.empty((model.layout.trainable_size,), model.dtype)
        replay = self._replay = Replay(model, Batches(count, count), training=True)
        replay.write_order(np.arange(count, dtype=np.int64))

        def make_executor(piece: Slice) -> Executor:
            recorder = replay.recorder(piece)
            buffers = (gradients, replay.rate_tables, replay.trace)
            more: dict[str, Any] = {"augment": augment, "clipping": options.clipping}
            record_training(recorder, examples, replay.order, count, loss, memory, *buffers, **more)
            return backend.executor(recorder.calls)

        replay.record(make_executor)
        #: The step's executor, which tests and benchmarks inspect.
        self._executor = replay.executors[0][0]

    def fits(
        self,
        network: Network,
        loss: Loss,
        memory: OptimizerState,
        batch: _Batch,
        scale: float,
        by_class: bool,
        augment: tuple[Augmentation, ...] = (),
        options: StepOptions = _PLAIN,
    ) -> bool:
        """Whether this recording can be used for another batch."""
        return self._kind == _kind(network, loss, memory, batch, scale, by_class, augment, options)

    def run(self, network: Network, batch: _Batch, largest: float | None = None) -> tuple[float, float]:
        """Take the step; returns the loss and the fraction of correct predictions before it.

        An error says that the largest target is large, if it is given.
        """
        backend, memory, examples = network.backend, self._memory, self._examples
        self._before, self._earlier = network.snapshot(into=self._earlier), self._before
        for array, buffer in zip(batch, (examples.x, examples.targets, examples.weights), strict=True):
            if array is not None:
                backend.write(array, buffer)
        self._replay.write_rates(checked_rates(memory.optimizer.schedule, memory.epochs, 1))
        self._replay.count_from(0, network.steps_trained, memory.steps)
        try:
            self._replay.run()
        except Exception:
            # An error in a layer's own function, which may have changed the layer's state before.
            network.restore(self._before)
            raise
        losses, correct, penalties = self._replay.read_trace()[0] / examples.count
        loss = float(losses + penalties)
        if not np.isfinite(loss):
            self._go_back(network, f"the loss of this batch is {loss}", largest)
        if broken := broken_slot(network, self._memory):
            # Updates would be 0 from now on, and all losses finite.
            self._go_back(network, f"this batch made the optimizer's {broken} NaN or infinite", largest)
        network.steps_trained += 1
        memory.steps += 1
        return loss, float(correct)

    def _go_back(self, network: Network, what: str, largest: float | None) -> NoReturn:
        network.restore(self._before)
        step = "this step"
        if not weights_are_finite(network):
            network.restore(self._earlier)
            step = "the step before, which broke them"
        # The slots may contain the broken values, so the optimiser starts over.
        network.optimizer_state = OptimizerState.fresh(self._memory.optimizer, network.model)
        raise TrainingDivergedError(
            f"{what}; the network has the weights from before {step}. " + advice(largest),
            network.epochs_trained + 1,
            network.steps_trained + 1,
        )


def _kind(
    network: Network,
    loss: Loss,
    memory: OptimizerState,
    batch: _Batch,
    scale: float,
    by_class: bool,
    augment: tuple[Augmentation, ...],
    options: StepOptions,
) -> tuple[Any, ...]:
    """What a recording depends on: the parameters' and slots' buffers, and the types and shapes of a batch."""
    rows, targets, weights = batch
    shapes = (rows.shape, rows.dtype, targets.shape, targets.dtype, weights is None)
    return (network.model, scale, memory, memory.optimizer.rule(), loss, by_class, augment, options, *shapes)
