"""Weights to and from PyTorch's state dicts.

A `Dense` is a ``torch.nn.Linear``, whose weight is transposed: (outputs, inputs). What is exchanged are arrays by
name; PyTorch itself is needed only to make tensors. This network ::

    net = nn.Network([nn.Dense(200, activation="relu"), nn.Dropout(0.2), nn.Dense(10)], input_shape=784)

and this one take each other's weights::

    module = torch.nn.Sequential(Linear(784, 200), ReLU(), Dropout(0.2), Linear(200, 10))
    module.load_state_dict(nnbackend.interop.torch.state_dict(net))
    nnbackend.interop.torch.load_state_dict(net, module.state_dict())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnbackend.errors import InvalidInputError
from nnbackend.interop.weights import replace_weights
from nnbackend.layers import Dense
from nnbackend.network import Network

__all__ = ["load_state_dict", "state_dict"]


def state_dict(network: Network, names: Sequence[str] | None = None, tensors: bool = True) -> dict[str, Any]:
    """Copies of a network's weights as a PyTorch module's ``load_state_dict`` takes them.

    Parameters
    ----------
    network : Network
    names : sequence of str, optional
        What the module calls its Linear layers, one for each `Dense` and in their order: ``["fc1", "fc2"]``. If not
        given, the places they have in a ``torch.nn.Sequential`` of the same layers, where an activation is a layer of
        its own: "0", "2", ...
    tensors : bool
        False for NumPy arrays, which need no PyTorch.

    Returns
    -------
    dict
        ``"0.weight"`` of shape (outputs, inputs), ``"0.bias"`` of shape (outputs,), in the network's dtype.

    Raises
    ------
    InvalidInputError
        A layer from outside has parameters, of which PyTorch knows nothing; or `names` do not fit.
    ImportError
        PyTorch is missing.
    """
    theirs = _parameter_names(network, names)
    arrays = {theirs[name]: np.ascontiguousarray(array.T) for name, array in network.get_weights().items()}
    if not tensors:
        return arrays
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "tensors need PyTorch: see https://pytorch.org for how to install it, or ask for arrays with tensors=False"
        ) from error
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def load_state_dict(network: Network, state: Mapping[str, Any], names: Sequence[str] | None = None) -> None:
    """Give a network the weights of a PyTorch module.

    Parameters
    ----------
    network : Network
    state : dict
        What ``module.state_dict()`` returned: tensors on any device, or arrays.
    names : sequence of str, optional
        As for `state_dict`.

    Raises
    ------
    InvalidInputError
        An array is missing, unknown, of the wrong shape or not finite; nothing was changed.
    """
    theirs = _parameter_names(network, names)
    if not isinstance(state, Mapping):
        raise InvalidInputError(
            f"a state dict is a dict of arrays by name, such as module.state_dict(), received {type(state).__name__}"
        )
    missing = [name for name in theirs.values() if name not in state]
    unknown = [str(name) for name in state if name not in theirs.values()]
    if missing or unknown:
        found = [f"lacks {_listed(missing)}"] if missing else []
        found += [f"holds {_listed(unknown)}, which the network has not"] if unknown else []
        raise InvalidInputError(
            f"the state dict {' and '.join(found)}; if its layers have other names say which, "
            "one for each Dense: names=['fc1', 'fc2', ...]"
        )
    replace_weights(network, theirs, {name: _on_host(value) for name, value in state.items()}, transposed=True)


def _listed(names: list[str]) -> str:
    """The first of them: a large module has hundreds."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _parameter_names(network: Network, names: Sequence[str] | None) -> dict[str, str]:
    """PyTorch's name of every parameter: "layers.2.bias" is "4.bias"."""
    modules = _sequential_places(network) if names is None else _checked_names(network, names)
    theirs: dict[str, str] = {}
    for entry in network.model.layout.entries:
        if entry.layer not in modules:
            raise InvalidInputError(
                f"{entry.name} belongs to a layer of your own, {network.layers[entry.layer]!r}, which PyTorch does not "
                "know; exchange its weights with get_weights() and set_weights()"
            )
        theirs[entry.name] = f"{modules[entry.layer]}.{entry.parameter.name}"
    return theirs


def _sequential_places(network: Network) -> dict[int, str]:
    places: dict[int, str] = {}
    place = 0
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            places[index] = str(place)
            place += layer.activation != "identity"
        place += 1
    return places


def _checked_names(network: Network, names: Sequence[str]) -> dict[int, str]:
    dense = [index for index, layer in enumerate(network.layers) if isinstance(layer, Dense)]
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not listed or len(names) != len(dense) or len(set(names)) != len(names):
        raise InvalidInputError(
            f"names must be a list of {len(dense)} different names, one for each Dense, received {names!r}"
        )
    return dict(zip(dense, names, strict=True))


def _on_host(value: Any) -> Any:
    """A tensor without its gradient, on the host, in a type that NumPy has; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
