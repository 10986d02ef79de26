"""Exchange weights with Keras, as the lists that ``model.get_weights()`` returns and ``model.set_weights()`` accepts.

The lists contain NumPy arrays: kernel and bias of each layer. Both libraries store a kernel as (inputs,
outputs). Keras itself is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError
from nnbackend.interop.weights import replace_weights
from nnbackend.network import Network

__all__ = ["get_weights", "set_weights"]


def get_weights(network: Network) -> list[HostArray]:
    """Copy a network's weights for ``model.set_weights()`` of a Keras model with the same layers.

    Returns
    -------
    list
        Kernel (inputs, outputs) and, if it has one, bias (outputs,) of each layer, in the network's dtype.
    """
    return list(network.get_weights().values())


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
    names: dict[str, str] = {}
    for place, entry in enumerate(network.model.layout.entries):
        what = {"weight": "kernel"}.get(entry.parameter.name, entry.parameter.name)
        names[entry.name] = f"weights[{place}] ({what})"
    if len(weights) != len(names):
        raise InvalidInputError(
            f"the network has {len(names)} arrays ({', '.join(names.values())}), received a list of {len(weights)}"
        )
    replace_weights(network, names, dict(zip(names.values(), weights, strict=True)))
