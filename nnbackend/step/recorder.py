"""The step as data: the layers' calls for one minibatch, recorded once and replayed for every batch.

Recording calls the layers' forward and backward passes and lists which operations use which buffers, without computing
anything. The backend then runs the list in the way that suits its hardware.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nnbackend.augment import Augmentation
from nnbackend.backends.contract import Array, Backend
from nnbackend.data.feed import Examples
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.optimizers import Optimizer
from nnbackend.step.augmentation import record_augmentation
from nnbackend.step.calls import Recorder, Workspace
from nnbackend.step.clipping import Clipping
from nnbackend.step.folding import fold_normalizations
from nnbackend.step.layer_step import backward_through, forward_through
from nnbackend.step.model import Model, OptimizerState, Snapshot

__all__ = [
    "Model",
    "OptimizerState",
    "Recorder",
    "Snapshot",
    "Workspace",
    "record_evaluation",
    "record_forward",
    "record_gradients",
    "record_training",
    "record_update",
]

#: Records calls that run between the gradients and the update, or after the update.
RecordMore = Callable[[Recorder], None]


def record_forward(recorder: Recorder, parameters: Mapping[str, Array], x: Array) -> tuple[Array, list[Any]]:
    """Record all layers' forward passes.

    Returns
    -------
    output : (rows, outputs) array
        The network's output, flattened if a sample has several axes.
    saved : list
        What each layer saved.
    """
    output, saved = forward_through(recorder, recorder.model.layout.nodes, parameters, x)
    if not recorder.training:
        fold_normalizations(recorder, output)
    return recorder.matrix(output), saved


def record_training(
    recorder: Recorder,
    examples: Examples,
    order: Array,
    batch_size: int,
    loss: Loss,
    memory: OptimizerState,
    gradients: Array,
    learning_rates: Mapping[float, Array],
    trace: Array,
    before_update: RecordMore | None = None,
    momenta: Array | None = None,
    augment: Sequence[Augmentation] = (),
    clipping: Clipping | None = None,
) -> None:
    """Record one training step: gather, augmentation, forward, loss, backward, penalties, update, bookkeeping.

    Parameters
    ----------
    recorder : Recorder
    examples : Examples
    order : (n,) int64, the rows' order in this epoch
    batch_size : int
        Rows of a full batch; the recorder may have fewer `rows`.
    loss : Loss
    memory : OptimizerState
    gradients : (layout.trainable_size,) array
        The flat buffer that the backward pass writes to.
    learning_rates : dict of (steps of an epoch,) float64
        For each learning-rate factor of the layers.
    trace : (steps of an epoch, 3) float64, see :meth:`Backend.record_loss`
    before_update : callable, optional
        Called with the recorder after the gradients are recorded, to record calls before the update.
    momenta : (steps of an epoch,) float64, optional
        Given if a schedule sets the momentum.
    augment : sequence of Augmentation
        Applied to the samples in this order.
    clipping : Clipping, optional
        Limits the gradients.
    """
    rows = record_gradients(recorder, examples, order, batch_size, loss, gradients, augment)
    record_update(recorder, rows, memory, gradients, learning_rates, trace, before_update, momenta, clipping)


def record_gradients(
    recorder: Recorder,
    examples: Examples,
    order: Array,
    batch_size: int,
    loss: Loss,
    gradients: Array,
    augment: Sequence[Augmentation] = (),
) -> Array:
    """Record the first half of a training step, from the gather to the gradients; see `record_training`.

    Returns
    -------
    (2, rows) array
        The buffer for the rows' losses and correct predictions.
    """
    model = recorder.model
    _set_gradients(recorder, gradients)
    saved, upstream, rows = _record_loss(recorder, examples, order, batch_size, loss, augment)
    upstream = recorder.reshape(upstream, model.layout.nodes[-1].output_shape)
    backward_through(recorder, model.layout.nodes, model.views, saved, upstream)
    for entry in model.layout.regularised:
        # The penalty's gradient is added to what is there, which would be that of the step before.
        if entry.name not in recorder.asked_gradients:
            raise InvalidInputError(
                f"{entry.name} has a penalty but no gradient: the backward pass of its layer must write to "
                f"step.gradient({entry.parameter.name!r})"
            )
    return rows


def record_update(
    recorder: Recorder,
    rows: Array | None,
    memory: OptimizerState,
    gradients: Array,
    learning_rates: Mapping[float, Array],
    trace: Array,
    before_update: RecordMore | None = None,
    momenta: Array | None = None,
    clipping: Clipping | None = None,
    after_update: RecordMore | None = None,
) -> None:
    """Record the second half of a training step: penalties, update, bookkeeping.

    Parameters
    ----------
    rows : (2, rows) array
        The result of `record_gradients`; None for a step without rows on this rank, which records no loss.
    after_update : callable, optional
        Called with the recorder after the update is recorded.
    """
    model = recorder.model
    _set_gradients(recorder, gradients)
    penalties = _record_penalties(recorder)
    if before_update is not None:
        before_update(recorder)
    if clipping is not None:
        clipping.record(recorder, gradients)
    # Backends and optimisers of other packages need not know the argument.
    scheduled = {}
    if momenta is not None:
        _check_momenta(model.backend, memory.optimizer)
        scheduled = {"momenta": momenta}
    for factor, begin, end in model.layout.rate_parts:
        part = partial(_part, model, begin, end)
        slots = {name: part(slot) for name, slot in memory.slots.items()}
        arrays = (part(model.trained), part(gradients), slots, recorder.counter, learning_rates[factor])
        memory.optimizer.record(recorder.record, *arrays, **scheduled)
    if after_update is not None:
        after_update(recorder)
    if rows is not None:
        recorder.record("record_loss", rows, penalties, recorder.counter, trace)
    recorder.record("advance", recorder.counter)


def _part(model: Model, begin: int, end: int, buffer: Array) -> Array:
    """Elements of a flat buffer of the trained parameters; the buffer itself if they are all."""
    whole = begin == 0 and end == model.layout.trainable_size
    return buffer if whole else model.backend.view(buffer, begin, (end - begin,))


def _check_momenta(backend: Backend, optimizer: Optimizer) -> None:
    """Refuse a schedule of the momentum on a backend of another package that was written before there was one."""
    if "momenta" not in inspect.signature(getattr(backend, optimizer.operation)).parameters:
        raise InvalidInputError(
            f"the backend {backend.name!r} cannot set the momentum in each step: its {optimizer.operation} takes no "
            "momenta; use another backend, such as 'numpy', or OneCycle(..., cycle_momentum=False)"
        )


def record_evaluation(
    recorder: Recorder,
    examples: Examples,
    order: Array,
    batch_size: int,
    loss: Loss,
    trace: Array,
    unweighted: Array | None = None,
    predictions: Array | None = None,
) -> None:
    """Record one step of evaluation: gather, forward, loss, bookkeeping.

    Parameters
    ----------
    predictions : (n, outputs) array, optional
        Receives the predictions.
    unweighted : (steps, 3) float64 array, optional
        A second trace, of the losses without weights; the other parameters are those of `record_training`.
    """
    x, targets, weights = _record_gather(recorder, examples, order, batch_size)
    output, _ = record_forward(recorder, recorder.model.views, x)
    if predictions is not None:
        predicted = recorder.like(output)
        recorder.record("activation_forward", output, loss.output_activation, 0.0, predicted)
        recorder.record("store_rows", predicted, recorder.counter, batch_size, predictions)
    gradient = recorder.like(output)
    for given, place in ((weights, trace), (None, unweighted)):
        if place is not None:
            rows = _record_row_losses(recorder, examples, loss, output, targets, given, gradient)
            recorder.record("record_loss", rows, None, recorder.counter, place)
    recorder.record("advance", recorder.counter)


def _record_loss(
    recorder: Recorder,
    examples: Examples,
    order: Array,
    batch_size: int,
    loss: Loss,
    augment: Sequence[Augmentation],
) -> tuple[list[Any], Array, Array]:
    """Record the gather to the loss. Returns what the layers saved, the gradient of the loss, and each row's loss and
    correctness."""
    x, targets, weights = _record_gather(recorder, examples, order, batch_size)
    x = record_augmentation(recorder, augment, x)
    output, saved = record_forward(recorder, recorder.model.views, x)
    gradient = recorder.like(output)
    return saved, gradient, _record_row_losses(recorder, examples, loss, output, targets, weights, gradient)


def _record_gather(
    recorder: Recorder, examples: Examples, order: Array, batch_size: int
) -> tuple[Array, Array, Array | None]:
    """Record the gather of a minibatch's samples, targets and weights."""
    x = recorder.input()
    recorder.record("gather", examples.x, order, recorder.counter, batch_size, examples.scale, recorder.matrix(x))
    targets = recorder.gather(examples.targets, order, batch_size, dtype=examples.target_dtype)
    return x, targets, _record_weights(recorder, examples, order, batch_size)


def _record_row_losses(
    recorder: Recorder,
    examples: Examples,
    loss: Loss,
    output: Array,
    targets: Array,
    weights: Array | None,
    gradient: Array,
) -> Array:
    """Record the loss and its gradient; returns the (2, rows) buffer for each row's loss and correctness."""
    backend, dtype, count = recorder.model.backend, recorder.model.dtype, recorder.rows
    flat = backend.empty((2 * count,), dtype)
    rows = backend.view(flat, 0, (2, count))
    loss.record(recorder, output, targets, weights, gradient, rows)
    if examples.by_class:
        # The loss counts every output. The squared error counts the rows whose largest output is at their class.
        other = backend.empty((2 * count,), dtype)
        unused = recorder.scratch(tuple(output.shape))
        recorder.record("mean_squared_error", output, targets, None, unused, backend.view(other, 0, (2, count)))
        correct, counted = backend.view(other, count, (1, count)), backend.view(flat, count, (1, count))
        recorder.record("activation_forward", correct, "identity", 0.0, counted)
    return rows


def _record_weights(recorder: Recorder, examples: Examples, order: Array, batch_size: int) -> Array | None:
    """The weights of the rows, with a factor that turns means over the rows of this step into parts of the batch's
    mean."""
    if examples.weights is not None:
        return recorder.gather(examples.weights, order, batch_size, recorder.share)
    if recorder.share == 1:
        return None
    backend, dtype = recorder.model.backend, recorder.model.dtype
    return backend.from_host(np.full(recorder.rows, recorder.share, dtype))


def _set_gradients(recorder: Recorder, gradients: Array) -> None:
    """Make the layers write their gradients to this flat buffer."""
    if not recorder.gradients:
        model = recorder.model
        recorder.gradients = model.layout.trainable.device_views(model.backend, gradients)


def _record_penalties(recorder: Recorder) -> Array | None:
    """Record the L1 and L2 penalties; returns the buffer for their values, or None if there are none."""
    model = recorder.model
    regularised = model.layout.regularised
    if not regularised:
        return None
    penalties = model.backend.empty((len(regularised),), model.dtype)
    for slot, entry in enumerate(regularised):
        rule = entry.parameter
        weight, gradient = model.views[entry.name], recorder.gradients[entry.name]
        if len(rule.shape) > 2:
            weight, gradient = recorder.channels(weight), recorder.channels(gradient)
        recorder.record("weight_penalty", weight, rule.l1, rule.l2, gradient, penalties, slot)
    return penalties
