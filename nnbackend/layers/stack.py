"""A list of layers as a whole: do they follow each other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.layers.activation import Activation
from nnbackend.layers.base import Layer
from nnbackend.layers.dense import Dense
from nnbackend.layers.dropout import Dropout
from nnbackend.layers.flatten import Flatten
from nnbackend.layers.max_abs_norm import MaxAbsNorm

__all__ = ["LAYERS", "check_layers", "final_activation", "follow_shapes", "layers_config", "layers_from_config"]

#: The built-in layers by the name that model files use.
LAYERS: dict[str, type[Layer]] = {layer.kind: layer for layer in (Dense, Activation, Dropout, Flatten, MaxAbsNorm)}


def check_layers(layers: Any) -> tuple[Layer, ...]:
    """`layers` as a tuple, if it is a list of distinct layers."""
    if isinstance(layers, Layer) or not isinstance(layers, Sequence):
        raise InvalidInputError(f"layers must be a list of layers, received {type(layers).__name__}")
    if not layers:
        raise InvalidInputError("a network needs at least one layer, received an empty list")
    seen: set[int] = set()
    for index, layer in enumerate(layers):
        if isinstance(layer, str):
            raise UnknownNameError("layer", layer, (kind.__name__ for kind in LAYERS.values()))
        if not isinstance(layer, Layer):
            raise InvalidInputError(f"layers[{index}] must be a Layer such as Dense(10), received {shown(layer)}")
        if layer.kind in LAYERS and type(layer) is not LAYERS[layer.kind]:
            raise InvalidInputError(
                f"layers[{index}]: a class of yours is called {type(layer).__name__} like a built-in layer, so a file "
                "could not tell them apart; rename it"
            )
        if id(layer) in seen:
            raise InvalidInputError(f"layers[{index}] is in the list twice; make a second layer instead")
        seen.add(id(layer))
    return tuple(layers)


def follow_shapes(
    layers: Sequence[Layer], input_shape: tuple[int, ...]
) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """The shape before each layer, and after the last."""
    shapes: list[tuple[int, ...]] = []
    shape = input_shape
    for index, layer in enumerate(layers):
        shapes.append(shape)
        try:
            shape = layer.output_shape(shape)
        except InvalidInputError as error:
            raise InvalidInputError(f"layers[{index}]: {error}") from None
    return shapes, shape


def final_activation(layers: Sequence[Layer]) -> str:
    """The activation whose values are the network's outputs, behind layers that pass them on; "identity" if none.

    MaxAbsNorm divides them, and what a layer from outside does to them is not known.
    """
    for layer in reversed(layers):
        if isinstance(layer, Dense | Activation):
            return layer.activation
        if not isinstance(layer, Flatten | Dropout):
            break
    return "identity"


def layers_config(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """The layers as plain JSON."""
    return [{"kind": layer.kind, **layer.config()} for layer in layers]


def layers_from_config(
    descriptions: Sequence[Mapping[str, Any]], custom_layers: Sequence[type[Layer]] = ()
) -> list[Layer]:
    """The layers that `layers_config` described.

    Parameters
    ----------
    descriptions : sequence of dict
        Each with the layer's ``"kind"`` and the arguments that make it.
    custom_layers : sequence of Layer subclasses
        Those from outside that may occur.

    Raises
    ------
    InvalidInputError
        A description is none, names a layer that is not known, or its layer does not take the arguments.
    """
    kinds = _kinds(custom_layers)
    if not isinstance(descriptions, list | tuple):
        raise InvalidInputError(f"layers must be a list of dicts, received {type(descriptions).__name__}")
    layers: list[Layer] = []
    for index, description in enumerate(descriptions):
        if not isinstance(description, Mapping) or not isinstance(description.get("kind"), str):
            raise InvalidInputError(
                f"layers[{index}] must be a dict such as {{'kind': 'dense', 'units': 10}}, "
                f"received {shown(description)}"
            )
        kind = description["kind"]
        if kind not in kinds:
            unknown = UnknownNameError("layer", kind, kinds)
            raise InvalidInputError(
                f"layers[{index}]: {unknown} If it is a class of yours, pass it in custom_layers=[...]"
            )
        try:
            layers.append(kinds[kind](**{key: value for key, value in description.items() if key != "kind"}))
        except Exception as error:
            # An argument that is missing or unknown, or whatever a layer from outside raises.
            arguments = shown(dict(description))
            raise InvalidInputError(f"layers[{index}] cannot be made from {arguments}: {error}") from error
    return layers


def _kinds(custom_layers: Sequence[type[Layer]]) -> dict[str, type[Layer]]:
    """Layers by the name that files use: the built-in ones and these."""
    if not isinstance(custom_layers, Sequence):
        raise InvalidInputError(f"custom_layers must be a list of classes, received {shown(custom_layers)}")
    kinds = dict(LAYERS)
    for layer in custom_layers:
        if not isinstance(layer, type) or not issubclass(layer, Layer):
            raise InvalidInputError(f"custom_layers must hold subclasses of Layer, received {shown(layer)}")
        if kinds.setdefault(layer.kind, layer) is not layer:
            raise InvalidInputError(f"two layers are called {layer.__name__}; rename the one in custom_layers")
    return kinds
