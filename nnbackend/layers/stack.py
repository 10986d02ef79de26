"""Sequences of layers: checks, positions in a network, and configuration."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from nnbackend.errors import InvalidAttributeError, InvalidInputError, UnknownNameError, shown
from nnbackend.layers.activation import Activation
from nnbackend.layers.base import Layer, Parameter, layers_config
from nnbackend.layers.convolution import Conv1D, Conv2D
from nnbackend.layers.dense import Dense
from nnbackend.layers.dropout import Dropout
from nnbackend.layers.embedding import Embedding, PeriodicEmbedding
from nnbackend.layers.max_abs_norm import MaxAbsNorm
from nnbackend.layers.normalization import BatchNormalization, LayerNormalization
from nnbackend.layers.parametric import ParametricActivation
from nnbackend.layers.pooling import AveragePool2D, GlobalAveragePool2D, GlobalMaxPool2D, L2Pool2D, MaxPool2D
from nnbackend.layers.residual import Residual
from nnbackend.layers.scale import Scale
from nnbackend.layers.shapes import Flatten, Reshape, ZeroPadding2D
from nnbackend.layers.standardization import Normalization

__all__ = [
    "LAYERS",
    "FixedLayers",
    "LayerNode",
    "all_layers",
    "check_layers",
    "final_activation",
    "follow_shapes",
    "layer_nodes",
    "layers_config",
    "layers_from_config",
    "written",
]

#: The built-in layers by their names in model files.
LAYERS: dict[str, type[Layer]] = {
    layer.kind: layer
    for layer in (
        Dense, Activation, Dropout, Flatten, MaxAbsNorm, Conv2D, Conv1D, MaxPool2D, AveragePool2D, L2Pool2D,
        GlobalAveragePool2D, GlobalMaxPool2D, BatchNormalization, LayerNormalization, Residual, Reshape, ZeroPadding2D,
        Scale, Normalization, ParametricActivation, Embedding, PeriodicEmbedding,
    )
}  # fmt: skip

#: Most channels of a picture: red, green, blue and transparency.
_PICTURE_CHANNELS = 4

#: Maximum depth of nested layers; more would exhaust Python's stack.
_DEEPEST = 32

#: What every layer has, whether or not its constructor takes it.
_OF_TRAINING = ("trainable", "learning_rate_factor")

#: Number of random streams for the layers nested in each layer of the network.
_NESTED_STREAMS = 1 << 16


@dataclass(eq=False, repr=False)
class LayerNode:
    """A layer and its position in a network.

    Attributes
    ----------
    name : str
        ``"layers.3"``, or ``"layers.3.layers.0"`` for a layer within that one.
    layer : Layer
    index : int
        Position in the network's list of this layer, or of the one that contains it.
    input_shape, output_shape : tuple of int
        Of one sample.
    stream : int
        The layer's own stream of random numbers.
    trainable : bool
        False if the layer, or one that contains it, is frozen.
    rate_factor : float
        The product of the learning-rate factors of the layer and of those that contain it.
    parameters : tuple of Parameter
        The layer's own.
    nodes : tuple of LayerNode
        The layers that it contains.
    learns : bool
        Whether training changes a parameter of this layer or its sublayers.
    """

    name: str
    layer: Layer
    index: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    stream: int
    trainable: bool
    rate_factor: float
    parameters: tuple[Parameter, ...]
    nodes: tuple[LayerNode, ...]
    learns: bool

    def walk(self) -> Iterator[LayerNode]:
        """This node and all nested nodes, in the order of the parameters."""
        yield self
        for node in self.nodes:
            yield from node.walk()

    def outdated(self, trainable: bool = True, rate_factor: float = 1.0) -> bool:
        """Whether a layer has been frozen or unfrozen since, or has another learning-rate factor; the arguments are the
        current ones of the containing layer."""
        now = trainable and self.layer.trainable, rate_factor * self.layer.learning_rate_factor
        return now != (self.trainable, self.rate_factor) or any(node.outdated(*now) for node in self.nodes)


class FixedLayers(tuple[Layer, ...]):
    """The layers of a network: a tuple that says what to do instead of changing it."""

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidAttributeError(
            "the layers of a network cannot be changed; make a new one: Network([*network.layers, layer], ...)"
        )

    append = clear = extend = insert = pop = remove = reverse = sort = _refuse
    __setitem__ = __delitem__ = _refuse


def layer_nodes(layers: Sequence[Layer], input_shapes: Sequence[tuple[int, ...]]) -> tuple[LayerNode, ...]:
    """The nodes of a network's layers, given the shape of a sample before each.

    Raises
    ------
    InvalidInputError
        A nested layer does not accept its input shape, or there are too many of them.
    """
    nodes = []
    for index, (layer, shape) in enumerate(zip(layers, input_shapes, strict=True)):
        streams = iter(range((index + 1) * _NESTED_STREAMS, (index + 2) * _NESTED_STREAMS))
        nodes.append(_node(layer, f"layers.{index}", index, shape, index, (True, 1.0), streams))
    if len(nodes) >= _NESTED_STREAMS - 1 and any(node.nodes for node in nodes):
        raise InvalidInputError(f"a network with nested layers has fewer than {_NESTED_STREAMS - 1:,} layers")
    return tuple(nodes)


def _node(
    layer: Layer,
    name: str,
    index: int,
    input_shape: tuple[int, ...],
    stream: int,
    training: tuple[bool, float],
    streams: Iterator[int],
) -> LayerNode:
    trainable, rate_factor = training[0] and layer.trainable, training[1] * layer.learning_rate_factor
    parameters = tuple(layer.parameters(input_shape))
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        raise InvalidInputError(f"{written(name)}: two of its parameters have the same name: {', '.join(names)}")
    nodes = []
    if layer.sublayers:
        shapes = _placed(name, layer.sublayer_shapes, input_shape)
        for place, (inner, shape) in enumerate(zip(layer.sublayers, shapes, strict=True)):
            inner_name = f"{name}.layers.{place}"
            own = next(streams, None)
            if own is None:
                raise InvalidInputError(f"{written(name)} contains more than {_NESTED_STREAMS:,} layers")
            nodes.append(_node(inner, inner_name, index, shape, own, (trainable, rate_factor), streams))
    return LayerNode(
        name=name,
        layer=layer,
        index=index,
        input_shape=input_shape,
        output_shape=_placed(name, layer.output_shape, input_shape),
        stream=stream,
        trainable=trainable,
        rate_factor=rate_factor,
        parameters=parameters,
        nodes=tuple(nodes),
        learns=(trainable and any(each.trainable for each in parameters)) or any(node.learns for node in nodes),
    )


def _placed(name: str, shape_of: Any, input_shape: tuple[int, ...]) -> Any:
    """``shape_of(input_shape)``; errors name the position of the layer."""
    try:
        return shape_of(input_shape)
    except InvalidInputError as error:
        raise InvalidInputError(f"{written(name)}: {error}") from None


def written(name: str) -> str:
    """``layers[3].layers[0]`` for ``layers.3.layers.0``."""
    return ".".join(f"layers[{part}]" for part in name.split(".")[1::2])


def all_layers(layers: Sequence[Layer]) -> Iterator[Layer]:
    """The layers and all nested layers."""
    for layer in layers:
        yield layer
        yield from all_layers(layer.sublayers)


def check_layers(layers: Any) -> tuple[Layer, ...]:
    """Check that `layers` is a list of distinct layers and return it as a tuple; also used for sublayers.

    Raises
    ------
    InvalidInputError, UnknownNameError
        It is not a list of layers, or one of them cannot be used in a network.
    """
    if isinstance(layers, Layer) or not isinstance(layers, Sequence):
        raise InvalidInputError(f"layers must be a list of layers, received {type(layers).__name__}")
    if not layers:
        raise InvalidInputError("a network needs at least one layer, received an empty list")
    _check_layers(layers, "", set(), {}, 1)
    return tuple(layers)


def _check_layers(
    layers: Sequence[Any], prefix: str, seen: set[int], kinds: dict[str, type[Layer]], depth: int
) -> None:
    if depth > _DEEPEST:
        raise InvalidInputError(f"layers contain layers more than {_DEEPEST} levels deep")
    for index, layer in enumerate(layers):
        place = f"{prefix}layers[{index}]"
        if isinstance(layer, str):
            raise UnknownNameError("layer", layer, (kind.__name__ for kind in LAYERS.values()))
        if isinstance(layer, type) and issubclass(layer, Layer):
            raise InvalidInputError(f"{place} is the class {layer.__name__}; make a layer of it: {layer.__name__}(...)")
        if not isinstance(layer, Layer):
            raise InvalidInputError(f"{place} must be a Layer such as Dense(10), received {shown(layer)}")
        if layer.kind in LAYERS and type(layer) is not LAYERS[layer.kind]:
            raise InvalidInputError(
                f"{place}: a class of yours is called {type(layer).__name__} like a built-in layer, so a file "
                "could not tell them apart; rename it"
            )
        if kinds.setdefault(layer.kind, type(layer)) is not type(layer):
            raise InvalidInputError(
                f"{place}: two classes are called {type(layer).__name__}, so a file could not tell them apart; rename "
                "one of them"
            )
        if id(layer) in seen:
            raise InvalidInputError(f"{place} is in the list twice; make a second layer instead")
        seen.add(id(layer))
        if not isinstance(layer.sublayers, tuple):
            raise InvalidInputError(f"{place}: sublayers must be a tuple of layers, received {shown(layer.sublayers)}")
        _check_layers(layer.sublayers, f"{place}.", seen, kinds, depth + 1)


def follow_shapes(
    layers: Sequence[Layer], input_shape: tuple[int, ...]
) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """The shape before each layer, and after the last."""
    shapes: list[tuple[int, ...]] = []
    shape = input_shape
    for index, layer in enumerate(layers):
        shapes.append(shape)
        try:
            shape = _placed(f"layers.{index}", layer.output_shape, shape)
        except InvalidInputError as error:
            if not (
                _looks_channels_first(input_shape) and any(hasattr(each, "window") for each in all_layers([layer]))
            ):
                raise
            raise InvalidInputError(
                f"{error}. Channels come last: if {input_shape} has them first, "
                f"give input_shape={(*input_shape[1:], input_shape[0])}"
            ) from None
    return shapes, shape


def _looks_channels_first(input_shape: tuple[int, ...]) -> bool:
    """Whether the first axis is as short as the channels of a picture, and shorter than the others."""
    return len(input_shape) in (2, 3) and input_shape[0] <= _PICTURE_CHANNELS and input_shape[0] < min(input_shape[1:])


def final_activation(layers: Sequence[Layer]) -> str:
    """The activation whose values are the network's outputs, possibly passed on by later layers; "identity" if none.

    MaxAbsNorm and user-defined layers change their inputs.
    """
    for layer in reversed(layers):
        if isinstance(layer, Dense | Activation | Conv2D):
            return layer.activation
        if not isinstance(layer, Flatten | Reshape | Dropout):
            break
    return "identity"


def layers_from_config(
    descriptions: Sequence[Mapping[str, Any]], custom_layers: Sequence[type[Layer]] = ()
) -> list[Layer]:
    """Create layers from the result of `layers_config`.

    Parameters
    ----------
    descriptions : sequence of dict
        Each with the layer's ``"kind"`` and its constructor arguments.
    custom_layers : sequence of Layer subclasses
        User-defined classes that the descriptions may name.

    Raises
    ------
    InvalidInputError
        A description is not a dict with a kind, names an unknown layer, or its layer does not take the arguments.
    """
    return _layers_from(descriptions, _kinds(custom_layers), "", 1)


def _layers_from(descriptions: Any, kinds: Mapping[str, type[Layer]], prefix: str, depth: int) -> list[Layer]:
    if not isinstance(descriptions, list | tuple):
        raise InvalidInputError(f"{prefix}layers must be a list of dicts, received {type(descriptions).__name__}")
    if depth > _DEEPEST:
        raise InvalidInputError(f"layers contain layers more than {_DEEPEST} levels deep")
    layers: list[Layer] = []
    for index, description in enumerate(descriptions):
        place = f"{prefix}layers[{index}]"
        if not isinstance(description, Mapping) or not isinstance(description.get("kind"), str):
            raise InvalidInputError(
                f"{place} must be a dict such as {{'kind': 'dense', 'units': 10}}, received {shown(description)}"
            )
        kind = description["kind"]
        if kind not in kinds:
            unknown = UnknownNameError("layer", kind, kinds)
            raise InvalidInputError(f"{place}: {unknown} If it is a class of yours, pass it in custom_layers=[...]")
        arguments = {key: value for key, value in description.items() if key != "kind"}
        for name in kinds[kind].layer_arguments:
            if _describes_layers(arguments.get(name)):
                arguments[name] = _layers_from(arguments[name], kinds, f"{place}.", depth + 1)
        layers.append(_make_layer(kinds[kind], arguments, place, description))
    return layers


def _describes_layers(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value)


def _make_layer(kind: type[Layer], arguments: dict[str, Any], place: str, description: Mapping[str, Any]) -> Layer:
    try:
        # User-defined classes and layers without parameters may lack these arguments.
        known = inspect.signature(kind).parameters
        later = {name: arguments.pop(name) for name in _OF_TRAINING if name in arguments and name not in known}
        layer = kind(**arguments)
        for name, value in later.items():
            setattr(layer, name, value)
    except Exception as error:
        # A missing or unknown argument, or any error of a user-defined layer.
        raise InvalidInputError(f"{place} cannot be made from {shown(dict(description))}: {error}") from error
    return layer


def _kinds(custom_layers: Sequence[type[Layer]]) -> dict[str, type[Layer]]:
    """Built-in and these layers, by their names in files."""
    if not isinstance(custom_layers, Sequence):
        raise InvalidInputError(f"custom_layers must be a list of classes, received {shown(custom_layers)}")
    kinds = dict(LAYERS)
    for layer in custom_layers:
        if not isinstance(layer, type) or not issubclass(layer, Layer):
            raise InvalidInputError(f"custom_layers must hold subclasses of Layer, received {shown(layer)}")
        if kinds.setdefault(layer.kind, layer) is not layer:
            raise InvalidInputError(f"two layers are called {layer.__name__}; rename the one in custom_layers")
    return kinds
