"""Images of the first layer's weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError
from nnbackend.layers import Dense
from nnbackend.network import Network
from nnbackend.plotting.checks import check_finite
from nnbackend.plotting.tiles import draw_signed_tiles
from nnbackend.support.checks import positive_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_weights"]


def plot_weights(weights: Any, shape: tuple[int, int] | None = None, ax: Axes | None = None, most: int = 40) -> Axes:
    """Plot the weights of each unit as an image: positive weights red, negative weights blue.

    Parameters
    ----------
    weights : (inputs, units) array_like or Network
        For a network, the weights of its first dense layer.
    shape : (height, width), optional
        Shape of the input images. Default: square.
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.
    most : int
        Largest number of units to draw.

    Returns
    -------
    Axes
        With a colour bar centred at zero.

    Raises
    ------
    InvalidInputError
        The weights are not a matrix or not finite, or the number of inputs does not match the shape or, without one,
        is not a square number.
    """
    matrix = as_host_array("weights", _first_weight(weights) if isinstance(weights, Network) else weights)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InvalidInputError(f"weights must be an (inputs, units) matrix, received shape {matrix.shape}")
    height, width = _image_shape(shape, matrix.shape[0])
    units = matrix[:, : positive_integer("most", most)].T.astype(np.float64)
    check_finite("weights", units)
    first = "" if len(units) == matrix.shape[1] else f"the first {len(units)} of "
    title = f"{first}{matrix.shape[1]:,} units\n{height} x {width} inputs each"
    return draw_signed_tiles(ax, units.reshape(-1, height, width), title, "weight")


def _first_weight(network: Network) -> npt.NDArray[Any]:
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            return network.get_weights()[f"layers.{index}.weight"]
    raise InvalidInputError("the network has no dense layer to plot the weights of; give a matrix of weights")


def _image_shape(shape: Any, inputs: int) -> tuple[int, int]:
    if shape is None:
        side = math.isqrt(inputs)
        if side * side != inputs:
            raise InvalidInputError(
                f"{inputs} inputs do not form a square image; give shape=(height, width) with that product"
            )
        return side, side
    sizes = tuple(positive_integer("shape", size) for size in np.ravel(np.asarray(shape, dtype=object)))
    if len(sizes) != 2 or sizes[0] * sizes[1] != inputs:
        raise InvalidInputError(
            f"shape must be (height, width) with the product {inputs}, the number of inputs, received {shape!r}"
        )
    return sizes[0], sizes[1]
