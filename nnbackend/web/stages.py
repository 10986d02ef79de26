"""Split a network into parts to observe the activations of its hidden layers."""

from __future__ import annotations

import itertools
from typing import Any

from nnbackend.backends.contract import HostArray
from nnbackend.layers import Dense
from nnbackend.network import Network

__all__ = ["Stages"]


class Stages:
    """A network split before each dense layer except the first; each part is a network on the same backend.

    Running all parts in sequence does the same work as running the whole network. Their outputs are the activations of
    the hidden layers, each after everything that precedes the next dense layer (an activation, a normalisation).

    Parameters
    ----------
    network : Network
        Its weights are copied; training it further has no effect here.

    Attributes
    ----------
    names : list of str
        Units and activation of each hidden layer.
    """

    def __init__(self, network: Network) -> None:
        dense = [place for place, layer in enumerate(network.layers) if isinstance(layer, Dense)]
        edges = [0, *dense[1:], len(network.layers)]
        self._parts: list[Network] = []
        for begin, end in itertools.pairwise(edges):
            self._parts.append(self._part(network, begin, end))
        self.names = [_name(part) for part in self._parts[:-1]]

    def __call__(self, x: Any) -> tuple[list[HostArray], HostArray]:
        """Compute the activations of all hidden layers and the network's predictions.

        Parameters
        ----------
        x : (n, *input_shape) array_like
            As for `Network.predict`.

        Returns
        -------
        hidden : list of (n, units) arrays
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


def _name(part: Network) -> str:
    """A name such as "200 units, relu"."""
    units = 1
    for size in part.output_shape:
        units *= size
    activations = [name for layer in part.layers if (name := getattr(layer, "activation", "identity")) != "identity"]
    return ", ".join([f"{units} unit{'' if units == 1 else 's'}", *activations])
