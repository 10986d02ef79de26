"""What each parameter of a network is in a PyTorch module with the same layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError
from nnbackend.interop.weights import Counterpart
from nnbackend.layers import (
    LAYERS,
    AveragePool2D,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePool2D,
    GlobalMaxPool2D,
    L2Pool2D,
    LayerNode,
    LayerNormalization,
    MaxPool2D,
    Normalization,
    Reshape,
    Residual,
    ZeroPadding2D,
)
from nnbackend.layers.stack import written
from nnbackend.network import Network
from nnbackend.support.checks import positive_integer

__all__ = ["Counterparts", "counterparts_in_torch"]

#: PyTorch's names of parameters, where they differ.
_NAMES = {
    "scale": "weight",
    "shift": "bias",
    "mean": "running_mean",
    "variance": "running_var",
    "running_variance": "running_var",
}

#: The axes of PyTorch's weights: our axes, and their meaning.
_LINEAR = (1, 0), "(outputs, inputs)"
_CONV2D = (3, 2, 0, 1), "(filters, channels / groups, height, width)"
_CONV1D = (2, 1, 0), "(filters, channels / groups, length)"

_IMAGE_LAYERS = (Conv2D, MaxPool2D, AveragePool2D, L2Pool2D, ZeroPadding2D)
_GLOBAL_POOLS = (GlobalAveragePool2D, GlobalMaxPool2D)


@dataclass
class Counterparts:
    """A state dict and its relation to the network.

    Attributes
    ----------
    parameters : dict from str to Counterpart
        By the network's names.
    constants : dict from str to array
        Arrays by PyTorch's names that are learned there, and constant in the network: of a normalisation with only
        one of scale and shift.
    counters : set of str
        PyTorch's names of counters of batches.
    """

    parameters: dict[str, Counterpart] = field(default_factory=dict)
    constants: dict[str, HostArray] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)

    @property
    def names(self) -> list[str]:
        """PyTorch's names of all arrays."""
        return [*(each.name for each in self.parameters.values()), *self.constants]


@dataclass(frozen=True, eq=False)
class _Features:
    """How the samples between two layers are arranged in PyTorch.

    Attributes
    ----------
    channels_first : bool
        Whether they are images or sequences whose channels come first there.
    order : array or None
        Of flat samples: our index of each of PyTorch's features, if the order differs.
    """

    channels_first: bool = False
    order: HostArray | None = None


def counterparts_in_torch(network: Network, names: Sequence[str] | None, batch_size: int | None) -> Counterparts:
    """The arrays of a state dict for a network.

    Raises
    ------
    InvalidInputError
        A user-defined layer has parameters, `names` does not match the layers, or the order of features in PyTorch
        cannot be determined.
    """
    nodes = network.model.layout.nodes
    if batch_size is not None:
        batch_size = positive_integer("batch_size", batch_size)
    modules = _sequential_names(nodes, "")
    if names is not None:
        modules = _checked_names(network, names)
    result = Counterparts()
    _walk(nodes, _Features(), result, modules, batch_size)
    return result


def _all(nodes: Sequence[LayerNode]) -> Iterator[LayerNode]:
    for node in nodes:
        yield from node.walk()


def _sequential_names(nodes: Sequence[LayerNode], prefix: str) -> dict[str, str]:
    """The name of each layer's module in an equivalent ``torch.nn.Sequential``, by the layer's name."""
    modules: dict[str, str] = {}
    index = 0
    for node in nodes:
        modules[node.name] = own = f"{prefix}{index}"
        if isinstance(node.layer, Residual):
            count = len(node.layer.layers)
            modules |= _sequential_names(node.nodes[:count], f"{own}.layers.")
            modules |= _sequential_names(node.nodes[count:], f"{own}.projection.")
        activated = isinstance(node.layer, Dense | Conv2D) and node.layer.activation != "identity"
        index += 2 if activated or isinstance(node.layer, _GLOBAL_POOLS) else 1
    return modules


def _checked_names(network: Network, names: Sequence[str]) -> dict[str, str]:
    layers = [node for node in _all(network.model.layout.nodes) if node.parameters]
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not listed or len(names) != len(layers) or len(set(names)) != len(names):
        raise InvalidInputError(
            f"names must be a list of {len(layers)} different names, one for each layer with weights "
            f"({', '.join(f'{written(node.name)} {type(node.layer).__name__}' for node in layers)}), received {names!r}"
        )
    return {node.name: name for node, name in zip(layers, names, strict=True)}


def _walk(
    nodes: Sequence[LayerNode],
    features: _Features,
    result: Counterparts,
    modules: dict[str, str],
    batch_size: int | None,
) -> _Features:
    """Add the counterparts of these layers; returns the arrangement of the last one's output."""
    for node in nodes:
        if node.parameters and type(node.layer) not in LAYERS.values():
            raise InvalidInputError(
                f"{node.name}.{node.parameters[0].name} belongs to a user-defined layer, {node.layer!r}, which PyTorch "
                "does not have; exchange its weights with get_weights() and set_weights()"
            )
        if isinstance(node.layer, Residual):
            count = len(node.layer.layers)
            through = _walk(node.nodes[:count], features, result, modules, batch_size)
            shortcut = _walk(node.nodes[count:], features, result, modules, batch_size)
            if through.order is not shortcut.order:
                raise _unordered(node, "adds features that PyTorch has in two different orders")
            features = _Features(through.channels_first or shortcut.channels_first, through.order)
            continue
        for parameter in node.parameters:
            name = f"{modules[node.name]}.{_NAMES.get(parameter.name, parameter.name)}"
            result.parameters[f"{node.name}.{parameter.name}"] = _counterpart(
                node, parameter.name, name, features, batch_size
            )
        if isinstance(node.layer, Normalization):
            result.counters.add(f"{modules[node.name]}.num_batches_tracked")
        if isinstance(node.layer, BatchNormalization | LayerNormalization):
            _add_affine(node, modules[node.name], result)
        features = _after(node, features, bool(result.parameters))
    return features


def _counterpart(
    node: LayerNode, parameter: str, name: str, features: _Features, batch_size: int | None
) -> Counterpart:
    layer = node.layer
    if isinstance(layer, Dense | Conv2D) and parameter == "weight":
        if isinstance(layer, Dense):
            return Counterpart(name, *_axes(_LINEAR), order=features.order)
        if isinstance(layer, Conv1D):
            return Counterpart(name, *_axes(_CONV1D, dropped=0))
        return Counterpart(name, *_axes(_CONV2D))
    if isinstance(layer, Dense | Conv2D):
        return Counterpart(name)
    factor = 1.0
    if parameter == "running_variance" and batch_size is not None:
        values = batch_size * math.prod(node.input_shape[:-1])
        if values == 1:
            raise InvalidInputError(f"{written(node.name)}: one value has no unbiased variance; leave batch_size out")
        factor = values / (values - 1)
    return Counterpart(name, order=features.order, factor=factor)


def _axes(axes: tuple[tuple[int, ...], str], dropped: int | None = None) -> tuple[tuple[int, ...], int | None, str]:
    return axes[0], dropped, axes[1]


def _add_affine(node: LayerNode, module: str, result: Counterparts) -> None:
    """A normalisation in PyTorch has both of weight and bias, or none of them; only LayerNorm may lack its bias."""
    layer = node.layer
    assert isinstance(layer, BatchNormalization | LayerNormalization)
    channels = node.input_shape[-1]
    if layer.center and not layer.scale:
        result.constants[f"{module}.weight"] = np.ones(channels)
    if layer.scale and not layer.center and isinstance(layer, BatchNormalization):
        result.constants[f"{module}.bias"] = np.zeros(channels)
    if isinstance(layer, BatchNormalization):
        result.counters.add(f"{module}.num_batches_tracked")


def _after(node: LayerNode, features: _Features, learned: bool) -> _Features:
    """The arrangement of a layer's output; `learned` says whether a layer so far has parameters."""
    layer, shape = node.layer, node.input_shape
    if isinstance(layer, Dense | GlobalAveragePool2D | GlobalMaxPool2D):
        return _Features()
    if isinstance(layer, _IMAGE_LAYERS) or (isinstance(layer, BatchNormalization | Normalization) and len(shape) > 1):
        return _Features(channels_first=True)
    reorders = features.channels_first and shape[-1] > 1 and math.prod(shape[:-1]) > 1
    if isinstance(layer, Flatten) and len(shape) > 1:
        if not reorders:
            return _Features()
        indices = np.arange(math.prod(shape)).reshape(shape)
        return _Features(order=np.ascontiguousarray(np.moveaxis(indices, -1, 0)).ravel())
    if isinstance(layer, Reshape):
        target = layer.target_shape
        becomes_image = len(target) > 1 and target[-1] > 1 and math.prod(target[:-1]) > 1
        if features.order is not None or reorders or (learned and becomes_image):
            raise _unordered(node, "changes the shape of features that PyTorch has in another order")
        return _Features()
    if features.order is not None and type(layer) not in LAYERS.values():
        raise _unordered(node, "is user-defined, and gets features that PyTorch has in another order")
    return features


def _unordered(node: LayerNode, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{written(node.name)}, {node.layer!r}, {what}, with channels first. Convert the weights of this "
        "network yourself, with get_weights() and set_weights()"
    )
