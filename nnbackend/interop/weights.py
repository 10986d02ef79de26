"""Weights that another library kept, under its names and in its orientation."""

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
    """Give a network the weights of another library; all of them, or an error and none.

    Parameters
    ----------
    network : Network
    names : dict from str to str
        For each parameter of the network, ``"layers.0.weight"``, what errors call it: the other library's name.
    values : dict from str to array_like
        By the other library's names.
    transposed : bool
        Whether that library keeps a weight as (outputs, inputs).

    Raises
    ------
    InvalidInputError
        An array is of the wrong shape, holds no numbers or such as are not finite; nothing was changed.
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
