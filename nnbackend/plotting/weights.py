"""What the units of the first layer look for."""

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
from nnbackend.plotting.figures import inches
from nnbackend.plotting.tiles import draw_tiles
from nnbackend.support.checks import positive_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_weights"]


def plot_weights(weights: Any, shape: tuple[int, int] | None = None, ax: Axes | None = None, most: int = 40) -> Axes:
    """The weights of each unit as an image of its inputs: blue where a bright pixel speaks against it, red where for.

    Parameters
    ----------
    weights : (inputs, units) array_like or Network
        Of a network, the weights of its first dense layer.
    shape : (height, width), optional
        Of the images that are the inputs; square if not given.
    ax : Axes, optional
        Where to draw; a new figure if not given.
    most : int
        How many units to draw at most.

    Returns
    -------
    Axes
        With a colour bar, whose middle is zero.

    Raises
    ------
    InvalidInputError
        The weights are no matrix or not finite, the inputs do not fill the shape, or are no square and none is given.
    """
    matrix = as_host_array("weights", _first_weight(weights) if isinstance(weights, Network) else weights)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InvalidInputError(f"weights must be an (inputs, units) matrix, received shape {matrix.shape}")
    height, width = _image_shape(shape, matrix.shape[0])
    units = matrix[:, : positive_integer("most", most)].T.astype(np.float64)
    check_finite("weights", units)
    # A few weights that are much larger than all others would leave these pale.
    largest = float(np.quantile(np.abs(units), 0.995, method="higher")) or float(np.abs(units).max()) or 1.0
    first = "" if len(units) == matrix.shape[1] else f"the first {len(units)} of "
    ax = draw_tiles(
        ax,
        units.reshape(-1, height, width),
        title=f"{first}{matrix.shape[1]:,} units\n{height} x {width} inputs each",
        beside=1.0,
        cmap="RdBu_r",
        vmin=-largest,
        vmax=largest,
    )

    from matplotlib.ticker import MaxNLocator

    # Inside the Axes' own frame it stays as high as the tiles, whatever room the layout has for them.
    bar = ax.inset_axes((1.02, 0, 0.03, 1))
    extend = "both" if np.abs(units).max() > largest else "neither"
    # A number of ticks that follows the height would change the room they need after the layout has measured it.
    ticks = MaxNLocator(int(np.clip(2 * inches(ax)[1], 2, 8)))
    ax.figure.colorbar(ax.images[0], cax=bar, label="weight", extend=extend, ticks=ticks)
    return ax


def _first_weight(network: Network) -> npt.NDArray[Any]:
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            return network.get_weights()[f"layers.{index}.weight"]
    raise InvalidInputError("the network has no dense layer, whose weights could be drawn; give a matrix of weights")


def _image_shape(shape: Any, inputs: int) -> tuple[int, int]:
    if shape is None:
        side = math.isqrt(inputs)
        if side * side != inputs:
            raise InvalidInputError(
                f"units with {inputs} inputs make no square image; give shape=(height, width) with that product"
            )
        return side, side
    sizes = tuple(positive_integer("shape", size) for size in np.ravel(np.asarray(shape, dtype=object)))
    if len(sizes) != 2 or sizes[0] * sizes[1] != inputs:
        raise InvalidInputError(
            f"shape must be a (height, width) whose product is {inputs}, the inputs of a unit, received {shape!r}"
        )
    return sizes[0], sizes[1]
