"""What exports to other formats have in common: checks, the arrays of a layer, and the windows of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.data.scale import scaled_by, warn
from nnbackend.errors import InvalidInputError, shown
from nnbackend.layers import LAYERS, BatchNormalization, LayerNode
from nnbackend.layers.dense import Linear
from nnbackend.layers.stack import written
from nnbackend.layers.windows import Window
from nnbackend.network import Network

__all__ = ["INPUT_DTYPES", "WindowPlaces", "check_built_in", "folded_weights", "input_dtype_of", "own_arrays", "places"]

#: Possible dtypes of the input of an exported model.
INPUT_DTYPES = ("uint8", "float32", "float64")


def input_dtype_of(name: Any, networks: Sequence[Network]) -> np.dtype[Any]:
    """The dtype of an exported model's input; that of the networks if `name` is None.

    Warns about bytes where the networks were trained with fractions, as `predict` warns about such rows.

    Raises
    ------
    InvalidInputError
        It is not one of `INPUT_DTYPES`.
    """
    if name is None:
        return networks[0].dtype
    try:
        dtype: np.dtype[Any] = np.dtype(np.dtype(name).name)  # By name, because exports have no byte orders.
    except TypeError:
        dtype = np.dtype(object)
    if dtype.name not in INPUT_DTYPES:
        known = ", ".join(INPUT_DTYPES[:-1])
        raise InvalidInputError(f"input_dtype must be {known} or {INPUT_DTYPES[-1]}, received {shown(name)}")
    for network in networks:
        if dtype.kind == "u" and network.trained_with is not None and network.trained_with.fractions:
            warn(
                f"input_dtype is {dtype.name}, but the network was trained with {network.trained_with.dtype} up to "
                f"{network.trained_with.high:g}, and its inputs are {scaled_by(network.scale.of(dtype))}. If the bytes "
                "are pixels up to 255, train with bytes, or export with the default and divide them by 255"
            )
            break
    return dtype


def check_built_in(network: Network, lacks: str) -> None:
    """Reject a network with a user-defined layer, which `lacks`, for example, "has no ONNX operators".

    Raises
    ------
    InvalidInputError
        The message names the layer and its place.
    """
    for node in (inner for outer in network.model.layout.nodes for inner in outer.walk()):
        if type(node.layer) not in LAYERS.values():
            known = ", ".join(kind.__name__ for kind in LAYERS.values())
            raise InvalidInputError(
                f"{written(node.name)} is {node.layer!r}, a user-defined layer, which {lacks}; "
                f"only {known} can be exported"
            )


def own_arrays(node: LayerNode, weights: Mapping[str, HostArray]) -> dict[str, HostArray]:
    """The arrays of a layer by their names within it."""
    return {parameter.name: weights[f"{node.name}.{parameter.name}"] for parameter in node.parameters}


def folded_weights(
    node: LayerNode, own: Mapping[str, HostArray], after: LayerNode, weights: Mapping[str, HostArray]
) -> dict[str, HostArray] | None:
    """Weight and bias of a linear layer with the normalisation after it; see :mod:`nnbackend.step.folding`.

    None if `after` is no batch normalisation of the linear layer's output, or if its factors are beyond the dtype.
    """
    layer = after.layer
    if not isinstance(node.layer, Linear) or node.layer.activation != "identity":
        return None
    if not isinstance(layer, BatchNormalization):
        return None
    normalization, dtype = own_arrays(after, weights), own["weight"].dtype
    with np.errstate(all="ignore"):
        variance = normalization["running_variance"].astype(np.float64)
        factor = normalization.get("scale", 1.0) / np.sqrt(variance + layer.epsilon)
        centred = own.get("bias", 0.0) - normalization["running_mean"].astype(np.float64)
        bias = centred * factor + normalization.get("shift", 0.0)
        folded = {"weight": (own["weight"] * factor).astype(dtype), "bias": bias.astype(dtype)}
    return folded if all(np.isfinite(array).all() for array in folded.values()) else None


@dataclass(frozen=True)
class WindowPlaces:
    """The windows of a layer on its images.

    Attributes
    ----------
    image : (int, int, int)
        Height, width and channels; a sequence is an image of one row.
    height, width : int
        Of the output.
    top, left, bottom, right : int
        Padding.
    """

    image: tuple[int, int, int]
    height: int
    width: int
    top: int
    left: int
    bottom: int
    right: int


def places(node: LayerNode, window: Window) -> WindowPlaces:
    """Where the windows of a layer lie."""
    shape = node.input_shape if len(node.input_shape) == 3 else (1, *node.input_shape)
    place = window.place(type(node.layer).__name__, shape)
    ends = []
    for axis, (windows, before) in enumerate(((place.height, place.top), (place.width, place.left))):
        covered = (window.size[axis] - 1) * window.dilation[axis] + 1
        ends.append(max((windows - 1) * window.strides[axis] + covered - shape[axis] - before, 0))
    image = shape[0], shape[1], shape[2]
    return WindowPlaces(image, place.height, place.width, place.top, place.left, *ends)
