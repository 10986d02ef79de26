"""Set a network's weights from another library, with its names and its order of axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError
from nnbackend.network import Network
from nnbackend.step.parameters import finite_in

__all__ = ["Counterpart", "replace_weights"]


@dataclass(frozen=True, eq=False)
class Counterpart:
    """The array of another library that corresponds to a parameter.

    Attributes
    ----------
    name : str
        In the other library.
    axes : tuple of int or None
        Which axis of ours each of its axes is. None: the same order.
    dropped : int or None
        An axis of length 1 of ours that it does not have.
    meaning : str
        Its axes in words, for error messages: "(outputs, inputs)".
    order : array or None
        The index along our first axis of each of its elements, if it orders the features differently.
    factor : float
        Its values divided by ours.
    """

    name: str
    axes: tuple[int, ...] | None = None
    dropped: int | None = None
    meaning: str = ""
    order: HostArray | None = None
    factor: float = 1.0

    def from_ours(self, array: HostArray) -> HostArray:
        """Convert our array."""
        array = array if self.order is None else array[self.order]
        array = array if self.dropped is None else array.squeeze(self.dropped)
        array = array if self.axes is None else array.transpose(self.axes)
        return np.ascontiguousarray(array if self.factor == 1 else array * array.dtype.type(self.factor))

    def to_ours(self, array: HostArray) -> HostArray:
        """Convert its array."""
        array = array if self.factor == 1 else array / self.factor
        array = array if self.axes is None else array.transpose(np.argsort(self.axes))
        array = array if self.dropped is None else np.expand_dims(array, self.dropped)
        if self.order is not None:
            array, ordered = np.empty_like(array), array
            array[self.order] = ordered
        return array

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of its array, given ours."""
        shape = [extent for axis, extent in enumerate(ours) if axis != self.dropped]
        return tuple(shape if self.axes is None else (shape[axis] for axis in self.axes))


def replace_weights(network: Network, counterparts: Mapping[str, Counterpart], values: Mapping[str, Any]) -> None:
    """Set all of a network's weights to those of another library, or none if there is an error.

    Parameters
    ----------
    network : Network
    counterparts : dict from str to Counterpart
        For each parameter of the network, such as ``"layers.0.weight"``.
    values : dict from str to array_like
        The arrays by the other library's names.

    Raises
    ------
    InvalidInputError
        An array has the wrong shape, is not numeric or not finite; nothing was changed.
    """
    weights: dict[str, HostArray] = {}
    for parameter, shape in network.model.layout.shapes().items():
        counterpart = counterparts[parameter]
        name = counterpart.name
        array = as_host_array(name, values[name])
        expected = counterpart.shape(shape)
        if array.shape != expected:
            which = f", {counterpart.meaning}," if counterpart.meaning else ""
            raise InvalidInputError(
                f"{name} must have shape {expected}{which} for {parameter}, received {array.shape}; nothing was changed"
            )
        weights[parameter] = finite_in(name, counterpart.to_ours(array), network.dtype)
    network.set_weights(weights)
