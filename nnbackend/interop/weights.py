"""Set a network's weights from another library, with its names and its orientation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError
from nnbackend.network import Network
from nnbackend.step.parameters import finite_in

__all__ = ["replace_weights"]


def replace_weights(
    network: Network, names: Mapping[str, str], values: Mapping[str, Any], transposed: bool = False
) -> None:
    """Set all of a network's weights to those of another library, or none if there is an error.

    Parameters
    ----------
    network : Network
    names : dict from str to str
        The other library's name for each parameter of the network, such as ``"layers.0.weight"``.
    values : dict from str to array_like
        The arrays by the other library's names.
    transposed : bool
        Whether that library stores a weight as (outputs, inputs).

    Raises
    ------
    InvalidInputError
        An array has the wrong shape, is not numeric or not finite; nothing was changed.
    """
    weights: dict[str, HostArray] = {}
    for parameter, shape in network.model.layout.shapes().items():
        name = names[parameter]
        array = as_host_array(name, values[name])
        expected = shape[::-1] if transposed else shape
        if array.shape != expected:
            order = "(outputs, inputs)" if transposed else "(inputs, outputs)"
            which = f", {order}," if len(shape) == 2 else ""
            raise InvalidInputError(
                f"{name} must have shape {expected}{which} for {parameter}, received {array.shape}; nothing was changed"
            )
        weights[parameter] = finite_in(name, array.T if transposed else array, network.dtype)
    network.set_weights(weights)
