"""The arrays of a network, the state of its optimiser, and copies of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.layers import Layer
from nnbackend.optimizers import Optimizer
from nnbackend.step.parameters import Layout, ParameterLayout
from nnbackend.support.fork_lock import cached_property

__all__ = ["Model", "OptimizerState", "Snapshot"]


@dataclass(eq=False, repr=False)
class Model:
    """Everything that a step needs from a network.

    Attributes
    ----------
    backend : Backend
    layers : sequence of Layer
    layout : ParameterLayout
    parameters : (layout.size,) array
        The flat buffer of all parameters, and state after them.
    dtype : numpy dtype
    seed : int
    """

    backend: Backend
    layers: Sequence[Layer]
    layout: ParameterLayout
    parameters: Array
    dtype: np.dtype[Any]
    seed: int

    @cached_property
    def trained(self) -> Array:
        """The (layout.trainable_size,) part of `parameters` that optimisers update."""
        size = self.layout.trainable_size
        return self.parameters if size == self.layout.size else self.backend.view(self.parameters, 0, (size,))

    @cached_property
    def views(self) -> dict[str, Array]:
        """Views of `parameters` by name."""
        return self.layout.device_views(self.backend, self.parameters)

    def frozen(self) -> Model:
        """The same model with a copy of the parameters, which later training does not change."""
        parameters = self.backend.empty((self.layout.size,), self.dtype)
        self.backend.copy(self.parameters, parameters)
        return replace(self, parameters=parameters)


@dataclass(eq=False, repr=False)
class OptimizerState:
    """The state of an optimiser.

    Attributes
    ----------
    optimizer : Optimizer
    slots : dict of (layout.trainable_size,) arrays
        Its slots by name, on the device.
    steps, epochs : int
        Numbers of steps and epochs taken.
    """

    optimizer: Optimizer
    slots: dict[str, Array]
    steps: int = 0
    epochs: int = 0

    @classmethod
    def fresh(cls, optimizer: Optimizer, model: Model) -> OptimizerState:
        """The initial state of an optimiser, with slots of zeros."""
        size = model.layout.trainable_size
        return cls(optimizer, {name: model.backend.empty((size,), model.dtype) for name in optimizer.slots})

    def move(self, source: Model, target: Model) -> None:
        """Transfer the slots by name to another backend, or to a layout in which other layers are frozen.

        Slots of newly trained parameters start at zero.
        """
        for name, buffer in self.slots.items():
            values = source.layout.trainable.unpack(source.backend.to_host(buffer))
            new = {
                entry.name: values.get(entry.name, np.zeros(entry.parameter.shape, target.dtype))
                for entry in target.layout.trainable.entries
            }
            self.slots[name] = target.backend.from_host(target.layout.trainable.pack(new, target.dtype))


class Snapshot:
    """A copy of a network's parameters and state on the device; see :meth:`nnbackend.Network.snapshot`.

    Parameters
    ----------
    model : Model
        The source of the copy.
    """

    def __init__(self, model: Model) -> None:
        self.dtype = model.dtype
        self._buffer = model.backend.empty((model.layout.size,), model.dtype)
        self._take(model)

    def _take(self, model: Model) -> None:
        model.backend.copy(model.parameters, self._buffer)
        self._backend, self._layout = model.backend, model.layout

    @classmethod
    def of_values(cls, model: Model, values: HostArray) -> Snapshot:
        """Create a snapshot from the (layout.size,) host array `values`, packed with the layout of `model`."""
        snapshot = cls(model)
        model.backend.write(values, snapshot._buffer)
        return snapshot

    def overwrite(self, model: Model) -> bool:
        """Copy the parameters of `model` to this snapshot's memory; if they do not fit, return False and change
        nothing."""
        fits = self._backend is model.backend and self._buffer.shape[0] == model.layout.size
        if fits and self.dtype == model.dtype:
            self._take(model)
            return True
        return False

    def restore(self, model: Model) -> bool:
        """Copy the snapshot to the parameters of `model`, by name if the layouts differ.

        Returns
        -------
        bool
            False if the two have different parameters; nothing was changed.
        """
        layout = model.layout
        if self.dtype != model.dtype or self._layout.shapes() != layout.shapes():
            return False
        if self._backend is model.backend and _same_places(self._layout, layout):
            model.backend.copy(self._buffer, model.parameters)
        else:
            model.backend.write(layout.pack(self.values(), model.dtype), model.parameters)
        return True

    def __repr__(self) -> str:
        return f"<Snapshot of {self._layout.count:,} weights in {self.dtype.name} on {self._backend.name}>"

    def values(self) -> dict[str, HostArray]:
        """Copies of the arrays on the host, by name, as :meth:`nnbackend.Network.get_weights` returns them."""
        return self._layout.unpack(self._backend.to_host(self._buffer))


def _same_places(one: Layout, other: Layout) -> bool:
    return one is other or all(
        (a.offset, a.row_stride) == (b.offset, b.row_stride) for a, b in zip(one.entries, other.entries, strict=True)
    )
