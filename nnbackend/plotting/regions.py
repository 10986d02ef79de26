"""Decision regions of a network in the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError
from nnbackend.plotting.checks import check_labels, check_points, class_names
from nnbackend.plotting.points import class_color, draw_points, limits, plane_axes
from nnbackend.support.checks import positive_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_decision_regions"]

#: Share of a class's colour in its region; the rest is white.
_TINT = 0.3


def plot_decision_regions(
    network: Any, x: Any, y: Any, classes: Sequence[str] | None = None, ax: Axes | None = None, resolution: int = 200
) -> Axes:
    """Plot the regions of the plane in which a network predicts each class, and points on top.

    Parameters
    ----------
    network : Network
        A network with two inputs, or any object whose ``predict_classes`` takes (n, 2) points and returns (n,) class
        indices.
    x : (n, 2) array_like
        The points; the regions extend a little beyond them.
    y : (n,) array_like of int
        Class index of each point.
    classes : sequence of str, optional
        Names of the classes. Default: 0, 1, 2, ...
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.
    resolution : int
        Number of predictions along each side of the plot.

    Returns
    -------
    Axes
        With a legend of the classes that have points or a region.

    Raises
    ------
    InvalidInputError
        The network does not have two inputs or cannot predict classes, the points are not of shape (n, 2) or not
        finite, the labels are not class indices, or a class has no name.
    """
    points = check_points(x)
    labels = check_labels("y", y, len(points))
    resolution = positive_integer("resolution", resolution)
    low, high = limits(points)
    regions = _predicted(network, points.dtype, low, high, resolution)
    names = class_names(classes, int(max(labels.max(), regions.max())) + 1)
    shown = np.union1d(labels, regions)
    ax = plane_axes(ax, low, high, names, shown)

    from matplotlib.colors import ListedColormap, to_rgb

    extent = (low[0], high[0], low[1], high[1])
    colors = [1 - _TINT * (1 - np.array(to_rgb(class_color(index)))) for index in range(len(names))]
    ax.imshow(
        regions,
        cmap=ListedColormap(colors),
        vmin=-0.5,
        vmax=len(names) - 0.5,
        extent=extent,
        origin="lower",
        # Interpolation would create wrong classes between two cells.
        interpolation="nearest",
    )
    for index in np.unique(regions)[1:]:
        # Contours hide the steps between cells and mark the regions for readers who cannot see the colours.
        ax.contour(regions == index, levels=[0.5], colors="white", linewidths=1.5, extent=extent, origin="lower")
    return draw_points(ax, points, labels, names, shown)


def _predicted(network: Any, dtype: np.dtype[Any], low: Any, high: Any, resolution: int) -> npt.NDArray[np.int64]:
    """Predicted classes at the centres of resolution x resolution cells, from the lowest row up."""
    if not callable(getattr(network, "predict_classes", None)):
        raise InvalidInputError(f"network must have predict_classes, received {type(network).__name__}; give a Network")
    inputs = math.prod(getattr(network, "input_shape", (2,)))
    if inputs != 2:
        raise InvalidInputError(
            f"decision regions need a network with 2 inputs, received one with {inputs}; train one on two features"
        )
    if getattr(network, "multilabel", False):
        raise InvalidInputError(
            "decision regions need one class for each point, but this network predicts any number of labels; give an "
            "object whose predict_classes(x) returns one column of the network's"
        )
    if dtype == np.uint8:
        # A network scales uint8 inputs itself, and the grid between the points is not uint8.
        raise InvalidInputError("x must be floating point, received uint8; train and plot with x / 255")
    centres = (np.arange(resolution) + 0.5) / resolution
    across, up = (low[axis] + centres * (high[axis] - low[axis]) for axis in (0, 1))
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    predicted = check_labels("predict_classes(x)", network.predict_classes(grid), len(grid))
    return predicted.reshape(resolution, resolution)
