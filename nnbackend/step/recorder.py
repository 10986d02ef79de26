"""The step as data: the layers' calls for one minibatch, recorded once and replayed for every batch.

Recording walks the layers forwards and backwards and writes down which operation works on which buffer. Nothing
is computed meanwhile. The list is then given to the backend, which runs it as suits its hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import OPERATIONS, Array, Backend, Call
from nnbackend.data.feed import Examples
from nnbackend.errors import UnknownNameError
from nnbackend.layers.base import Layer
from nnbackend.losses import Loss
from nnbackend.optimizers import Optimizer
from nnbackend.step.parameters import ParameterLayout

__all__ = [
    "Model",
    "OptimizerState",
    "Recorder",
    "Workspace",
    "record_evaluation",
    "record_forward",
    "record_gradients",
    "record_training",
    "record_update",
]


@dataclass(eq=False, repr=False)
class Model:
    """Everything a step needs of a network.

    Attributes
    ----------
    backend : Backend
    layers : sequence of Layer
    layout : ParameterLayout
    parameters : (layout.size,) array
        The flat buffer of all parameters.
    dtype : numpy dtype
    seed : int
    """

    backend: Backend
    layers: Sequence[Layer]
    layout: ParameterLayout
    parameters: Array
    dtype: np.dtype[Any]
    seed: int


@dataclass(eq=False, repr=False)
class OptimizerState:
    """What an optimiser remembers of the steps it has taken.

    Attributes
    ----------
    optimizer : Optimizer
    slots : dict of (layout.size,) arrays
        Its state by name, on the device.
    steps, epochs : int
        How long it has been at work.
    """

    optimizer: Optimizer
    slots: dict[str, Array]
    steps: int = 0
    epochs: int = 0

    @classmethod
    def fresh(cls, optimizer: Optimizer, model: Model) -> OptimizerState:
        """Slots of zeros for an optimiser that starts."""
        slots = {name: model.backend.empty((model.layout.size,), model.dtype) for name in optimizer.slots}
        return cls(optimizer, slots)

    def move(self, source: Model, target: Model) -> None:
        """Carry the slots from one backend to another, where rows may be padded otherwise."""
        for name, buffer in self.slots.items():
            values = source.layout.unpack(source.backend.to_host(buffer))
            self.slots[name] = target.backend.from_host(target.layout.pack(values, target.dtype))


class Workspace:
    """Buffers of a step, handed out in order and again from the start for the next recording.

    The step for a shorter last batch asks for the same buffers in the same order as the full one, and gets their
    first rows.
    """

    def __init__(self, backend: Backend, capacity: int) -> None:
        self._backend = backend
        self._capacity = capacity
        self._buffers: list[Array] = []
        self._next = 0

    def rewind(self) -> None:
        """The next recording begins."""
        self._next = 0

    def matrix(self, rows: int, columns: int, dtype: npt.DTypeLike) -> Array:
        """A (rows, columns) buffer whose rows are padded as the backend asks."""
        multiple = self._backend.row_multiple
        return self._take((self._capacity, -(-columns // multiple) * multiple), dtype)[:rows, :columns]

    def vector(self, rows: int, dtype: npt.DTypeLike) -> Array:
        """A (rows,) buffer."""
        return self._take((self._capacity,), dtype)[:rows]

    def _take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        if self._next == len(self._buffers):
            self._buffers.append(self._backend.empty(shape, dtype))
        buffer = self._buffers[self._next]
        self._next += 1
        return buffer


class Recorder:
    """Writes down the calls of one step.

    Parameters
    ----------
    model : Model
    workspace : Workspace
        Rewound by this.
    rows : int
        Rows of the batch.
    counter : (3,) int64 array
        Step in the epoch, steps of the network, steps of the optimiser.
    training : bool
    first_row, batch_rows : int
        If others have the batch's other rows: how many come before these, and how many there are in all. The
        gradients and losses are then this step's part of the whole batch's.

    Attributes
    ----------
    calls : list of Call
    share : float
        Of the batch's rows.
    """

    def __init__(
        self,
        model: Model,
        workspace: Workspace,
        rows: int,
        counter: Array,
        training: bool,
        first_row: int = 0,
        batch_rows: int | None = None,
    ) -> None:
        workspace.rewind()
        self.first_row = first_row
        self.share = 1.0 if batch_rows is None else rows / batch_rows
        self.model = model
        self.rows = rows
        self.counter = counter
        self.training = training
        self.calls: list[Call] = []
        self._workspace = workspace

    def buffer(self, features: int) -> Array:
        return self._workspace.matrix(self.rows, features, self.model.dtype)

    def record(self, operation: str, *arguments: Any, **named: Any) -> None:
        declared = OPERATIONS.get(operation)
        if declared is None:
            raise UnknownNameError("operation (record a function of your own with call())", operation, OPERATIONS)
        bound = declared.bind(arguments, named)
        declared.check(bound)
        self.calls.append(Call(operation, bound))

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        self.calls.append(Call.custom(function, *arguments))

    def gather(
        self, source: Array, order: Array, batch_size: int, scale: float = 1.0, dtype: npt.DTypeLike | None = None
    ) -> Array:
        """Record the gather of one minibatch of `source`; returns the buffer it goes to, of the network's dtype
        unless another is given."""
        wanted = self.model.dtype if dtype is None else dtype
        if source.ndim == 2:
            out = self._workspace.matrix(self.rows, source.shape[1], wanted)
        else:
            out = self._workspace.vector(self.rows, wanted)
        self.record("gather", source, order, self.counter, batch_size, scale, out)
        return out


#: Records what is to run between the gradients and the update.
BeforeUpdate = Callable[[Recorder], None]


@dataclass(eq=False, repr=False)
class _LayerStep:
    """A recorder seen through one layer's names; see :class:`nnbackend.layers.base.LayerStep`."""

    recorder: Recorder
    stream: int
    parameters: Mapping[str, Array]
    gradients: Mapping[str, Array]

    @property
    def training(self) -> bool:
        return self.recorder.training

    @property
    def seed(self) -> int:
        return self.recorder.model.seed

    @property
    def counter(self) -> Array:
        return self.recorder.counter

    @property
    def first_row(self) -> int:
        return self.recorder.first_row

    def parameter(self, name: str) -> Array:
        return self.parameters[f"layers.{self.stream}.{name}"]

    def gradient(self, name: str) -> Array:
        return self.gradients[f"layers.{self.stream}.{name}"]

    def buffer(self, features: int) -> Array:
        return self.recorder.buffer(features)

    def record(self, operation: str, *arguments: Any, **named: Any) -> None:
        self.recorder.record(operation, *arguments, **named)

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        self.recorder.call(function, *arguments)


def record_forward(recorder: Recorder, parameters: Mapping[str, Array], x: Array) -> tuple[Array, list[Any]]:
    """Record all layers' forward passes: the network's output, and what each layer saved."""
    saved: list[Any] = []
    for index, layer in enumerate(recorder.model.layers):
        x, kept = layer.forward(_LayerStep(recorder, index, parameters, {}), x)
        saved.append(kept)
    return x, saved


def record_training(
    recorder: Recorder,
    examples: Examples,
    order: Array,
    batch_size: int,
    loss: Loss,
    memory: OptimizerState,
    gradients: Array,
    learning_rates: Array,
    trace: Array,
    before_update: BeforeUpdate | None = None,
) -> None:
    """Record one training step: gather, forward, loss, backward, penalties, update, bookkeeping.

    Parameters
    ----------
    recorder : Recorder
    examples : Examples
    order : (n,) int64, the rows' order in this epoch
    batch_size : int
        Rows of a full batch; the recorder's own `rows` may be fewer.
    loss : Loss
    memory : OptimizerState
    gradients : (layout.size,) array
        The flat buffer the backward pass writes to.
    learning_rates : (steps of an epoch,) float64
    trace : (steps of an epoch, 3) float64, see :meth:`Backend.record_loss`
    before_update : callable, optional
        Called with the recorder when the gradients are complete; what it records runs before the update.
    """
    rows = record_gradients(recorder, examples, order, batch_size, loss, gradients)
    record_update(recorder, rows, memory, gradients, learning_rates, trace, before_update)


def record_gradients(
    recorder: Recorder, examples: Examples, order: Array, batch_size: int, loss: Loss, gradients: Array
) -> Array:
    """Record the first half of a training step, from the gather to the gradients, as `record_training` has them.

    Returns
    -------
    (2, rows) array
        Where the rows' losses and correct predictions will be.
    """
    model = recorder.model
    parameters = model.layout.device_views(model.backend, model.parameters)
    slopes = model.layout.device_views(model.backend, gradients)
    saved, upstream, rows = _record_loss(recorder, parameters, examples, order, batch_size, loss)
    _record_backward(recorder, parameters, slopes, saved, upstream)
    return rows


def record_update(
    recorder: Recorder,
    rows: Array | None,
    memory: OptimizerState,
    gradients: Array,
    learning_rates: Array,
    trace: Array,
    before_update: BeforeUpdate | None = None,
) -> None:
    """Record the other half: penalties, update, bookkeeping.

    Parameters
    ----------
    rows : (2, rows) array
        What `record_gradients` returned; None for a step without rows of its own, which notes no loss.
    """
    model = recorder.model
    parameters = model.layout.device_views(model.backend, model.parameters)
    slopes = model.layout.device_views(model.backend, gradients)
    penalties = _record_penalties(recorder, parameters, slopes)
    if before_update is not None:
        before_update(recorder)
    memory.optimizer.record(
        recorder.record, model.parameters, gradients, memory.slots, recorder.counter, learning_rates
    )
    if rows is not None:
        recorder.record("record_loss", rows, penalties, recorder.counter, trace)
    recorder.record("advance", recorder.counter)


def record_evaluation(
    recorder: Recorder, examples: Examples, order: Array, batch_size: int, loss: Loss, trace: Array
) -> None:
    """Record one step of evaluation: gather, forward, loss, bookkeeping."""
    model = recorder.model
    parameters = model.layout.device_views(model.backend, model.parameters)
    *_, rows = _record_loss(recorder, parameters, examples, order, batch_size, loss)
    recorder.record("record_loss", rows, None, recorder.counter, trace)
    recorder.record("advance", recorder.counter)


def _record_loss(
    recorder: Recorder,
    parameters: Mapping[str, Array],
    examples: Examples,
    order: Array,
    batch_size: int,
    loss: Loss,
) -> tuple[list[Any], Array, Array]:
    """From the gather to the loss: what the layers saved, the loss's gradient, and each row's loss and correctness."""
    x = recorder.gather(examples.x, order, batch_size, examples.scale)
    targets = recorder.gather(examples.targets, order, batch_size, dtype=examples.target_dtype)
    weights = _record_weights(recorder, examples, order, batch_size)
    output, saved = record_forward(recorder, parameters, x)
    gradient = recorder.buffer(output.shape[1])
    rows = recorder.model.backend.empty((2, recorder.rows), recorder.model.dtype)
    recorder.record(loss.name, output, targets, weights, gradient, rows)
    return saved, gradient, rows


def _record_weights(recorder: Recorder, examples: Examples, order: Array, batch_size: int) -> Array | None:
    """The rows' weights. Losses are means over the rows there are; a factor makes them a share of the batch's."""
    if examples.weights is not None:
        return recorder.gather(examples.weights, order, batch_size, recorder.share)
    if recorder.share == 1:
        return None
    backend, dtype = recorder.model.backend, recorder.model.dtype
    return backend.from_host(np.full(recorder.rows, recorder.share, dtype))


def _record_backward(
    recorder: Recorder,
    parameters: Mapping[str, Array],
    gradients: Mapping[str, Array],
    saved: Sequence[Any],
    upstream: Array,
) -> None:
    layers = recorder.model.layers
    # Below the first layer that learns nothing needs a gradient.
    first = min((entry.layer for entry in recorder.model.layout.entries), default=len(layers))
    for index in range(len(layers) - 1, first - 1, -1):
        step = _LayerStep(recorder, index, parameters, gradients)
        upstream = layers[index].backward(step, saved[index], upstream, index > first)


def _record_penalties(
    recorder: Recorder, parameters: Mapping[str, Array], gradients: Mapping[str, Array]
) -> Array | None:
    """L1 and L2: their values' buffer, or None if no layer has any."""
    regularised = recorder.model.layout.regularised
    if not regularised:
        return None
    penalties = recorder.model.backend.empty((len(regularised),), recorder.model.dtype)
    for slot, entry in enumerate(regularised):
        rule = entry.parameter
        weight, gradient = parameters[entry.name], gradients[entry.name]
        recorder.record("weight_penalty", weight, rule.l1, rule.l2, gradient, penalties, slot)
    return penalties
