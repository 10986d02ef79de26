"""Exchange weights with PyTorch's state dicts.

A `Dense` layer corresponds to ``torch.nn.Linear``, whose weight is transposed: (outputs, inputs). Weights are exchanged
as arrays by name; PyTorch itself is needed only to create tensors. This network ::

    net = nn.Network([nn.Dense(200, activation="relu"), nn.Dropout(0.2), nn.Dense(10)], input_shape=784)

and this module can exchange weights::

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
    """Copy a network's weights for the ``load_state_dict`` of a PyTorch module.

    Parameters
    ----------
    network : Network
    names : sequence of str, optional
        Names of the module's Linear layers, one for each `Dense` and in their order: ``["fc1", "fc2"]``. Default: their
        indices in a ``torch.nn.Sequential`` of the same layers, in which each activation is a separate layer: "0",
        "2", ...
    tensors : bool
        False returns NumPy arrays, which do not need PyTorch.

    Returns
    -------
    dict
        ``"0.weight"`` of shape (outputs, inputs), ``"0.bias"`` of shape (outputs,), in the network's dtype.

    Raises
    ------
    InvalidInputError
        A user-defined layer has parameters, or `names` does not match the layers.
    ImportError
        PyTorch is not installed.
    """
    torch_names = _parameter_names(network, names)
    arrays = {torch_names[name]: np.ascontiguousarray(array.T) for name, array in network.get_weights().items()}
    if not tensors:
        return arrays
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "tensors need PyTorch: install it as described on https://pytorch.org, or get arrays with tensors=False"
        ) from error
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def load_state_dict(network: Network, state: Mapping[str, Any], names: Sequence[str] | None = None) -> None:
    """Set a network's weights to those of a PyTorch module.

    Parameters
    ----------
    network : Network
    state : dict
        The result of ``module.state_dict()``: tensors on any device, or arrays.
    names : sequence of str, optional
        As for `state_dict`.

    Raises
    ------
    InvalidInputError
        An array is missing, unknown, of the wrong shape or not finite; nothing was changed.
    """
    torch_names = _parameter_names(network, names)
    if not isinstance(state, Mapping):
        raise InvalidInputError(
            f"a state dict is a dict of arrays by name, such as module.state_dict(), received {type(state).__name__}"
        )
    missing = [name for name in torch_names.values() if name not in state]
    unknown = [str(name) for name in state if name not in torch_names.values()]
    if missing or unknown:
        problems = [f"lacks {_listed(missing)}"] if missing else []
        problems += [f"has {_listed(unknown)}, which the network does not have"] if unknown else []
        raise InvalidInputError(
            f"the state dict {' and '.join(problems)}; if its layers have other names, list one for each Dense: "
            "names=['fc1', 'fc2', ...]"
        )
    replace_weights(network, torch_names, {name: _on_host(value) for name, value in state.items()}, transposed=True)


def _listed(names: list[str]) -> str:
    """The first names and the number of the others; a large module has hundreds."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _parameter_names(network: Network, names: Sequence[str] | None) -> dict[str, str]:
    """PyTorch's name of every parameter, such as "4.bias" for "layers.2.bias"."""
    modules = _sequential_indices(network) if names is None else _checked_names(network, names)
    torch_names: dict[str, str] = {}
    for entry in network.model.layout.entries:
        if entry.layer not in modules:
            raise InvalidInputError(
                f"{entry.name} belongs to a user-defined layer, {network.layers[entry.layer]!r}, which PyTorch does "
                "not have; exchange its weights with get_weights() and set_weights()"
            )
        torch_names[entry.name] = f"{modules[entry.layer]}.{entry.parameter.name}"
    return torch_names


def _sequential_indices(network: Network) -> dict[int, str]:
    """For each Dense layer, its index in an equivalent ``torch.nn.Sequential``."""
    indices: dict[int, str] = {}
    index_in_torch = 0
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            indices[index] = str(index_in_torch)
            index_in_torch += layer.activation != "identity"
        index_in_torch += 1
    return indices


def _checked_names(network: Network, names: Sequence[str]) -> dict[int, str]:
    dense = [index for index, layer in enumerate(network.layers) if isinstance(layer, Dense)]
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not listed or len(names) != len(dense) or len(set(names)) != len(names):
        raise InvalidInputError(
            f"names must be a list of {len(dense)} different names, one for each Dense, received {names!r}"
        )
    return dict(zip(dense, names, strict=True))


def _on_host(value: Any) -> Any:
    """A tensor detached from its gradient, on the host, in a dtype that NumPy has; other values unchanged."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
