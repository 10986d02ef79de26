"""Split a network into parts to observe what its hidden layers make of an image."""

from __future__ import annotations

import itertools
import math
from typing import Any

from nnbackend.backends.contract import HostArray
from nnbackend.layers import Activation, BatchNormalization, Conv1D, Conv2D, Dense, Layer, LayerNormalization, Residual
from nnbackend.layers.stack import all_layers
from nnbackend.network import Network

__all__ = ["Stages"]

#: Layers that belong to the convolution before them: its feature maps are shown after these.
_AFTER_CONVOLUTION = (Activation, BatchNormalization, LayerNormalization)


class Stages:
    """A network split after each convolution and before each dense layer that follows another one.

    Each part is a network on the same backend. Running all parts in sequence does the same work as running the whole
    network. Their outputs are the activations of the hidden layers: of a convolution, or of a residual block of
    convolutions, after the normalisation and the activation that follow it directly; of a dense layer, after everything
    that precedes the next convolution or dense layer.

    Parameters
    ----------
    network : Network
        Its weights are copied; training it further has no effect here.

    Attributes
    ----------
    names : list of str
        Units, or number and size of the feature maps, and activation of each hidden layer.
    shapes : list of tuple
        Of each hidden layer's output: (units,), or (height, width, maps).
    kernels : list of (height, width, channels, filters) array or None
        The weights of each hidden layer that is a convolution of images.
    """

    def __init__(self, network: Network) -> None:
        self._parts: list[Network] = []
        for begin, end in itertools.pairwise([0, *_edges(network.layers), len(network.layers)]):
            self._parts.append(self._part(network, begin, end))
        hidden = self._parts[:-1]
        self.names = [_name(part) for part in hidden]
        self.shapes = [part.output_shape if _is_maps(part) else (math.prod(part.output_shape),) for part in hidden]
        self.kernels = [_kernels(part) for part in hidden]

    def __call__(self, x: Any) -> tuple[list[HostArray], HostArray]:
        """Compute the activations of all hidden layers and the network's predictions.

        Parameters
        ----------
        x : (n, *input_shape) array_like
            As for `Network.predict`.

        Returns
        -------
        hidden : list of (n, units) or (n, height, width, maps) arrays
        outputs : (n, outputs) array
            The result of `Network.predict` of the whole network.
        """
        hidden: list[HostArray] = []
        for part in self._parts[:-1]:
            x = part.predict(x)
            hidden.append(x)
        return hidden, self._parts[-1].predict(x)

    def _part(self, network: Network, begin: int, end: int) -> Network:
        whole = network.config()
        first, last = begin == 0, end == len(network.layers)
        config = {
            **whole,
            "layers": whole["layers"][begin:end],
            "input_shape": whole["input_shape"] if first else list(self._parts[-1].output_shape),
            "input_scale": whole["input_scale"] if first else 1.0,
            "loss": whole["loss"] if last else None,
        }
        if not first:
            config["inputs"] = None
        part = Network.from_config(config, network.backend, [type(layer) for layer in network.layers])
        part.set_weights(
            {
                f"layers.{int(place) - begin}.{name}": values
                for key, values in network.get_weights().items()
                for _, place, name in [key.split(".", 2)]
                if begin <= int(place) < end
            }
        )
        return part


def _edges(layers: tuple[Layer, ...]) -> list[int]:
    """Where a hidden layer ends and something else follows."""
    edges = []
    shown = [place for place, layer in enumerate(layers) if isinstance(layer, Dense) or _convolves(layer)]
    for place, following in itertools.pairwise([*shown, len(layers)]):
        end = following
        if _convolves(layers[place]):
            end = place + 1
            while end < following and isinstance(layers[end], _AFTER_CONVOLUTION):
                end += 1
        if end < len(layers):
            edges.append(end)
    return edges


def _convolves(layer: Layer) -> bool:
    """Whether it is a convolution of images, or a residual block with one."""
    if isinstance(layer, Residual):
        return any(_convolves(inner) for inner in all_layers(layer.sublayers))
    return isinstance(layer, Conv2D) and not isinstance(layer, Conv1D)


def _is_maps(part: Network) -> bool:
    return any(_convolves(layer) for layer in part.layers) and len(part.output_shape) == 3


def _kernels(part: Network) -> HostArray | None:
    for place, layer in enumerate(part.layers):
        if _convolves(layer) and not isinstance(layer, Residual):
            return part.get_weights()[f"layers.{place}.weight"]
    return None


def _name(part: Network) -> str:
    """A name such as "200 units, relu" or "20 maps of 24 x 24, relu"."""
    if _is_maps(part):
        height, width, maps = part.output_shape
        size = f"{maps} map{'' if maps == 1 else 's'} of {height} x {width}"
    else:
        units = math.prod(part.output_shape)
        size = f"{units} unit{'' if units == 1 else 's'}"
    activations = [name for layer in part.layers if (name := getattr(layer, "activation", "identity")) != "identity"]
    return ", ".join([size, *activations])
