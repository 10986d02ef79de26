"""Exchange weights with Keras, as the lists that ``model.get_weights()`` returns and ``model.set_weights()`` accepts.

The lists contain NumPy arrays, layer by layer: kernel and bias, or gamma, beta, moving mean and moving variance. Both
libraries store a kernel as (inputs, outputs) or (height, width, channels, filters), flatten images with their channels
last, and follow the biased variance, so nothing is converted but the kernel of a `Conv1D`, which has no height in
Keras. The layers of a `Residual` come first, then those of its projection; compare with ``model.layers``. Keras itself
is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError
from nnbackend.interop.weights import Counterpart, replace_weights
from nnbackend.layers import Conv1D, Conv2D, Dense, LayerNode, Normalization
from nnbackend.network import Network

__all__ = ["get_weights", "set_weights"]

#: Keras's names of parameters, where they differ.
_NAMES = {
    "weight": "kernel",
    "scale": "gamma",
    "shift": "beta",
    "running_mean": "moving_mean",
    "running_variance": "moving_variance",
}


def get_weights(network: Network) -> list[HostArray]:
    """Copy a network's weights for ``model.set_weights()`` of a Keras model with the same layers.

    Returns
    -------
    list
        For each layer kernel and bias, or gamma, beta, moving mean and moving variance, as far as it has them, in the
        network's dtype.
    """
    weights = network.get_weights()
    return [counterpart.from_ours(weights[name]) for name, counterpart in _counterparts(network).items()]


def set_weights(network: Network, weights: Sequence[Any]) -> None:
    """Set a network's weights to those of a Keras model.

    Parameters
    ----------
    network : Network
    weights : list of array_like
        The result of ``model.get_weights()``: ``[kernel, bias, kernel, bias, ...]``.

    Raises
    ------
    InvalidInputError
        The number of arrays differs, or an array has the wrong shape or is not finite; nothing was changed.
    """
    if not isinstance(weights, list | tuple):
        raise InvalidInputError(
            f"weights must be a list of arrays, such as model.get_weights(), received {type(weights).__name__}"
        )
    counterparts = _counterparts(network)
    names = [counterpart.name for counterpart in counterparts.values()]
    if len(weights) != len(names):
        raise InvalidInputError(
            f"the network has {len(names)} arrays ({', '.join(names)}), received a list of {len(weights)}"
        )
    replace_weights(network, counterparts, dict(zip(names, weights, strict=True)))


def _counterparts(network: Network) -> dict[str, Counterpart]:
    """The arrays of a list, by our names in the list's order. Our own order has all state at the end."""
    counterparts: dict[str, Counterpart] = {}
    for node in (inner for outer in network.model.layout.nodes for inner in outer.walk()):
        for parameter in node.parameters:
            name = f"weights[{len(counterparts)}] ({_NAMES.get(parameter.name, parameter.name)})"
            counterparts[f"{node.name}.{parameter.name}"] = _counterpart(node, parameter.name, name)
    return counterparts


def _counterpart(node: LayerNode, parameter: str, name: str) -> Counterpart:
    if isinstance(node.layer, Normalization):
        raise InvalidInputError(
            f"{node.name} is a Normalization, whose list in Keras depends on how it was made; exchange the weights of "
            "a network without it, and give its mean and variance to both layers"
        )
    if parameter != "weight" or not isinstance(node.layer, Dense | Conv2D):
        return Counterpart(name)
    if isinstance(node.layer, Dense):
        return Counterpart(name, meaning="(inputs, outputs)")
    if isinstance(node.layer, Conv1D):
        return Counterpart(name, dropped=0, meaning="(length, channels / groups, filters)")
    return Counterpart(name, meaning="(height, width, channels / groups, filters)")
