"""Layers of a trained network in another network, with their weights."""

from __future__ import annotations

import weakref
from typing import Any

from nnbackend.errors import InvalidInputError, shown
from nnbackend.layers import Layer, all_layers
from nnbackend.step.inference import NetworkInference
from nnbackend.step.parameters import ParameterLayout

__all__ = ["check_layers_are_new", "note_trained", "take_weights"]

#: By the ids of layers whose weights some network has trained, loaded or been given: the layer, and the ids of all
#: layers of each of these networks. Layers are found by identity, because those of users may be equal, or have no hash.
_trained: dict[int, tuple[weakref.ref[Layer], set[tuple[int, ...]]]] = {}


def note_trained(network: NetworkInference) -> None:
    """Remember that the weights of a network are no longer the initial ones."""
    ids = tuple(map(id, network.layers))
    for layer in all_layers(network.layers):
        key = id(layer)
        known = _trained.get(key)
        if known is not None and known[0]() is layer:
            known[1].add(ids)
        else:
            _trained[key] = weakref.ref(layer, lambda _, key=key: _trained.pop(key, None)), {ids}  # type: ignore[misc]


def check_layers_are_new(network: NetworkInference) -> None:
    """Refuse some of the layers of a trained network, whose weights the caller may expect.

    All of its layers, in their order, make a new network of the same kind.

    Raises
    ------
    InvalidInputError
    """
    ids = tuple(map(id, network.layers))
    for node in (inner for top in network.model.layout.nodes for inner in top.walk()):
        known = _trained.get(id(node.layer)) if node.parameters else None
        if known is not None and known[0]() is node.layer and ids not in known[1]:
            raise InvalidInputError(
                f"{node.name} belongs to a network that has been trained or given weights. A layer describes weights, "
                "and the network has them: to use the layer with them, give Network(..., weights_from=that_network); "
                "to begin with new weights, make a new layer"
            )


def take_weights(network: NetworkInference, source: Any) -> None:
    """Copy the weights and state of all layers that a network shares with another one, and its factor on the inputs
    if the first layer is shared.

    Raises
    ------
    InvalidInputError
        It is no network, has none of the layers, or has a layer's parameters in other shapes.
    """
    if not isinstance(source, NetworkInference):
        raise InvalidInputError(f"weights_from must be a Network, received {shown(source)}")
    names, weights, taken = _names(source.model.layout), source.get_weights(), {}
    for layer, name in _names(network.model.layout).items():
        if layer not in names:
            continue
        for parameter, shape in network.model.layout.shapes().items():
            if parameter.rpartition(".")[0] != name:
                continue
            array = weights[f"{names[layer]}.{parameter.rpartition('.')[2]}"]
            if array.shape != shape:
                raise InvalidInputError(
                    f"{parameter} has shape {shape} in this network, and {array.shape} in weights_from; a layer keeps "
                    "its weights only if it gets samples of the same shape"
                )
            taken[parameter] = array
    if not taken:
        raise InvalidInputError(
            "this network has no layer with weights from weights_from; begin its list with layers of that network: "
            "Network([*old.layers[:-1], Dense(3)], ..., weights_from=old)"
        )
    network.set_weights(taken, partial=True)
    if network.input_scale is None and source.layers[0] is network.layers[0]:
        network.input_scale = source.input_scale


def _names(layout: ParameterLayout) -> dict[int, str]:
    """The names of all layers by their ids."""
    return {id(node.layer): node.name for top in layout.nodes for node in top.walk()}
