"""Exchange weights with PyTorch's state dicts.

A `Dense` layer corresponds to ``torch.nn.Linear``, whose weight is transposed: (outputs, inputs). Weights are exchanged
as arrays by name; PyTorch itself is needed only to create tensors. This network ::

    net = nn.Network([nn.Dense(200, activation="relu"), nn.Dropout(0.2), nn.Dense(10)], input_shape=784)

and this module can exchange weights::

    module = torch.nn.Sequential(Linear(784, 200), ReLU(), Dropout(0.2), Linear(200, 10))
    module.load_state_dict(nnbackend.interop.torch.state_dict(net))
    nnbackend.interop.torch.load_state_dict(net, module.state_dict())

Images have their channels first in PyTorch:

* The weight of a `Conv2D` becomes (filters, channels / groups, height, width), that of a `Conv1D` (filters, channels /
  groups, length).
* PyTorch flattens an image channel by channel, so the weight of a `Dense` layer, or of a normalisation, after
  `Flatten` has its inputs in another order. This applies if the image comes from a layer for images, such as `Conv2D`;
  samples that reach `Flatten` directly are the same for both.
* `BatchNormalization` is ``BatchNorm2d(channels, eps=epsilon, momentum=1 - momentum)``: PyTorch's momentum is the share
  of the new statistics. Running statistics are copied, and predictions agree. While training, PyTorch follows the
  unbiased variance, which is n / (n - 1) times the biased one, for n values of a channel in a batch: give `batch_size`
  to convert one into the other. This is exact once the initial variance is forgotten.
* `Normalization` is ``BatchNorm1d(features, eps=0, affine=False)`` or ``BatchNorm2d``, in the mode of evaluation: in
  training, PyTorch would follow the statistics of each batch.
* PyTorch pads both sides alike. Where "same" needs an extra row or column at the end, put ``torch.nn.ZeroPad2d`` before
  the convolution, and list the names of the layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError
from nnbackend.interop.torch_layers import Counterparts, counterparts_in_torch
from nnbackend.interop.weights import replace_weights
from nnbackend.network import Network

__all__ = ["load_state_dict", "state_dict"]


def state_dict(
    network: Network, names: Sequence[str] | None = None, tensors: bool = True, *, batch_size: int | None = None
) -> dict[str, Any]:
    """Copy a network's weights for the ``load_state_dict`` of a PyTorch module.

    Parameters
    ----------
    network : Network
    names : sequence of str, optional
        Names of the module's layers, one for each layer with weights and in their order: ``["fc1", "fc2"]``. Default:
        their indices in a ``torch.nn.Sequential`` of the same layers, in which each activation is a separate layer:
        "0", "2", ... A global pool counts as two, the pool and ``torch.nn.Flatten``. A `Residual` counts as one module
        with two Sequentials, ``layers`` and ``projection``.
    tensors : bool
        False returns NumPy arrays, which do not need PyTorch.
    batch_size : int, optional
        Rows of a batch in training. If given, running variances are converted from biased to unbiased ones;
        otherwise they are copied.

    Returns
    -------
    dict
        ``"0.weight"`` of shape (outputs, inputs), ``"0.bias"`` of shape (outputs,), in the network's dtype. Without the
        counters ``num_batches_tracked``, which a module then keeps.

    Raises
    ------
    InvalidInputError
        A user-defined layer has parameters, `names` does not match the layers, or the order of features in PyTorch
        cannot be determined.
    ImportError
        PyTorch is not installed.
    """
    theirs = counterparts_in_torch(network, names, batch_size)
    weights = network.get_weights()
    arrays = {each.name: each.from_ours(weights[name]) for name, each in theirs.parameters.items()}
    arrays |= {name: values.astype(network.dtype) for name, values in theirs.constants.items()}
    if not tensors:
        return arrays
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "tensors need PyTorch: install it as described on https://pytorch.org, or get arrays with tensors=False"
        ) from error
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def load_state_dict(
    network: Network, state: Mapping[str, Any], names: Sequence[str] | None = None, *, batch_size: int | None = None
) -> None:
    """Set a network's weights to those of a PyTorch module.

    Parameters
    ----------
    network : Network
    state : dict
        The result of ``module.state_dict()``: tensors on any device, or arrays. The counters ``num_batches_tracked``
        are ignored.
    names : sequence of str, optional
        As for `state_dict`.
    batch_size : int, optional
        Rows of a batch when the module was trained. If given, running variances are converted from unbiased to biased
        ones; otherwise they are copied.

    Raises
    ------
    InvalidInputError
        An array is missing, unknown, of the wrong shape or not finite; nothing was changed.
    """
    theirs = counterparts_in_torch(network, names, batch_size)
    if not isinstance(state, Mapping):
        raise InvalidInputError(
            f"a state dict is a dict of arrays by name, such as module.state_dict(), received {type(state).__name__}"
        )
    wanted = {*(each.name for each in theirs.parameters.values()), *theirs.constants}
    missing = [name for name in theirs.names if name not in state]
    unknown = [str(name) for name in state if name not in wanted and name not in theirs.counters]
    if missing or unknown:
        problems = [f"lacks {_listed(missing)}"] if missing else []
        problems += [f"has {_listed(unknown)}, which the network does not have"] if unknown else []
        raise InvalidInputError(
            f"the state dict {' and '.join(problems)}; if its layers have other names, list one for each layer with "
            "weights: names=['fc1', 'fc2', ...]"
        )
    arrays = {name: _on_host(value) for name, value in state.items() if name in wanted}
    _check_constants(theirs, arrays)
    replace_weights(network, theirs.parameters, arrays)


def _check_constants(theirs: Counterparts, arrays: Mapping[str, Any]) -> None:
    """Check what the module learned and the network has as a constant."""
    for name, expected in theirs.constants.items():
        values: HostArray = np.asarray(arrays[name])
        if values.shape != expected.shape or not (values == expected).all():
            raise InvalidInputError(
                f"{name} must be {expected.flat[0]:g} everywhere, because the network's layer has no such parameter "
                "(center=False or scale=False); nothing was changed"
            )


def _listed(names: list[str]) -> str:
    """The first names and the number of the others; a large module has hundreds."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _on_host(value: Any) -> Any:
    """A tensor detached from its gradient, on the host, in a dtype that NumPy has; other values unchanged."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
