"""Kernels of convolutions, and the images that layers make of an image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError, shown
from nnbackend.layers import Conv1D, Conv2D
from nnbackend.network import Network
from nnbackend.plotting.checks import check_finite
from nnbackend.plotting.tiles import draw_signed_tiles, draw_tiles
from nnbackend.support.checks import count, positive_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_feature_maps", "plot_kernels"]


def plot_kernels(weights: Any, layer: int | None = None, ax: Axes | None = None, most: int = 40) -> Axes:
    """Plot the kernels of a convolution as images: positive weights red, negative weights blue.

    Parameters
    ----------
    weights : (height, width, channels, filters) array_like or Network
        For a network, the weights of one of its convolutions.
    layer : int, optional
        Index of the layer in the network. Default: its first `Conv2D`.
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.
    most : int
        Largest number of images to draw.

    Returns
    -------
    Axes
        With a colour bar centred at zero. For several channels, each row shows the kernels of one filter.

    Raises
    ------
    InvalidInputError
        The weights do not have four axes or are not finite, or the layer is no `Conv2D`.
    """
    if isinstance(weights, Network):
        weights = weights.get_weights()[f"layers.{_convolution(weights, layer)}.weight"]
    elif layer is not None:
        raise InvalidInputError("layer is the index of a network's layer; give the network instead of its weights")
    kernels: HostArray = as_host_array("weights", weights)
    if kernels.ndim != 4 or kernels.size == 0:
        raise InvalidInputError(
            f"weights must have the shape (height, width, channels, filters), received {kernels.shape}"
        )
    height, width, channels, filters = kernels.shape
    columns = min(channels, positive_integer("most", most))
    drawn = min(filters, max(most // columns, 1))
    chosen = kernels[:, :, :columns, :drawn].astype(np.float64)
    check_finite("weights", chosen)
    tiles = chosen.transpose(3, 2, 0, 1).reshape(-1, height, width)
    title = f"{_first(drawn, filters)}{filters:,} filters of {height} x {width}"
    if channels > 1:
        title += f"\na row for each, {_first(columns, channels)}{channels:,} channels"
    return draw_signed_tiles(ax, tiles, title, "weight", columns if channels > 1 else None)


def plot_feature_maps(
    network: Network, x: Any, layer: int | None = None, ax: Axes | None = None, most: int = 40
) -> Axes:
    """Plot what a layer makes of one sample: an image for each channel of its output.

    Parameters
    ----------
    network : Network
    x : array_like
        One sample, of the network's input shape or flat; uint8 is scaled as in `predict`.
    layer : int, optional
        Index of the layer in the network, whose output must be (height, width, channels). Default: its first `Conv2D`.
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.
    most : int
        Largest number of images to draw.

    Returns
    -------
    Axes
        Outputs without negative values are grey, with 0 black; others red for positive and blue for negative values.
        All images share one scale.

    Raises
    ------
    InvalidInputError
        It is not one sample of the network, or the layer's output is no image.
    """
    index = _convolution(network, None) if layer is None else _place(network, layer)
    nodes = network.model.layout.nodes[: index + 1]
    has_weights = any(inner.parameters for node in nodes for inner in node.walk())
    part = Network(
        network.layers[: index + 1], network.input_shape, backend=network.backend, dtype=network.dtype,
        input_scale=network.input_scale, weights_from=network if has_weights else None,
    )  # fmt: skip
    if len(part.output_shape) != 3:
        raise InvalidInputError(
            f"the output of layers[{index}], {network.layers[index]!r}, has the shape {part.output_shape}; choose a "
            "layer whose output is (height, width, channels)"
        )
    sample: HostArray = as_host_array("x", x)
    shapes = network.input_shape, (math.prod(network.input_shape),)
    if sample.shape not in (*shapes, *((1, *shape) for shape in shapes)):
        raise InvalidInputError(
            f"x must be one sample of shape {network.input_shape}, received {sample.shape}; choose one: x[0]"
        )
    most = positive_integer("most", most)
    maps = part.predict(sample.reshape(1, *network.input_shape))[0].transpose(2, 0, 1)
    chosen = maps[:most].astype(np.float64)
    check_finite("the outputs of the layer", chosen)
    title = f"layers[{index}], {type(network.layers[index]).__name__}\n"
    title += f"{_first(len(chosen), len(maps))}{len(maps):,} maps of {maps.shape[1]} x {maps.shape[2]}"
    if chosen.min() < 0:
        return draw_signed_tiles(ax, chosen, title, "output")
    return draw_tiles(ax, chosen, title=title, cmap="gray", vmin=0.0, vmax=float(chosen.max()) or 1.0)


def _convolution(network: Network, layer: int | None) -> int:
    """The index of a Conv2D, by default of the first."""
    if layer is not None:
        index = _place(network, layer)
        if not _is_convolution(network.layers[index]):
            raise InvalidInputError(
                f"layers[{index}] is {network.layers[index]!r}, which has no kernels; choose a Conv2D"
            )
        return index
    for index, each in enumerate(network.layers):
        if _is_convolution(each):
            return index
    raise InvalidInputError("the network has no Conv2D; choose a layer")


def _is_convolution(layer: Any) -> bool:
    return isinstance(layer, Conv2D) and not isinstance(layer, Conv1D)


def _place(network: Network, layer: Any) -> int:
    index = count("layer", layer)
    if index >= len(network.layers):
        raise InvalidInputError(f"the network has {len(network.layers)} layers, received layer={shown(layer)}")
    return index


def _first(drawn: int, all_of_them: int) -> str:
    return "" if drawn == all_of_them else f"the first {drawn} of "
