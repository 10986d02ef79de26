"""Scatter plots of points by class."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.plotting.checks import check_labels, check_points, class_names
from nnbackend.plotting.figures import COLORS, MARKERS, axes_or_new, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["class_color", "draw_points", "limits", "plane_axes", "plot_scatter"]

#: Longer side of a new figure without its legend, in inches.
_SIDE = 4.4
#: Most entries in a column of the legend.
_LEGEND_ROWS = 16
_LEGEND_POINTS = 9


def plot_scatter(x: Any, y: Any, classes: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Plot points in the plane, with a colour and a marker for each class.

    Parameters
    ----------
    x : (n, 2) array_like
    y : (n,) array_like of int
        Class index of each point.
    classes : sequence of str, optional
        Names of the classes. Default: 0, 1, 2, ...
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.

    Returns
    -------
    Axes
        With a legend of the classes that have points.

    Raises
    ------
    InvalidInputError
        The points are not of shape (n, 2) or not finite, the labels are not class indices, or a class has no name.
    """
    points = check_points(x)
    labels = check_labels("y", y, len(points))
    names = class_names(classes, int(labels.max()) + 1)
    shown = np.unique(labels)
    return draw_points(plane_axes(ax, *limits(points), names, shown), points, labels, names, shown)


def limits(points: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lower and upper limits of both axes, with a margin; the shorter side is at least a quarter of the longer."""
    low, high = points.min(axis=0).astype(float), points.max(axis=0).astype(float)
    longest = float((high - low).max()) or 1.0
    half = np.maximum(high - low, longest / 4) / 2 + 0.06 * longest
    middle = (low + high) / 2
    return middle - half, middle + half


def plane_axes(ax: Axes | None, low: Any, high: Any, names: Sequence[str], shown: npt.NDArray[np.int64]) -> Axes:
    """Axes with these limits and equal scales; a new figure leaves room for the legend."""
    if ax is None:
        width, height = _SIDE * (high - low) / (high - low).max()
        entries = [_wrapped(names[index]) for index in shown]
        columns = _legend_columns(len(entries))
        lines = sum(entry.count("\n") + 1 for entry in entries) / columns
        beside = columns * (0.5 + max(text_width(entry, _LEGEND_POINTS) for entry in entries))
        ax = axes_or_new(None, (width + 0.7 + beside, max(height + 0.5, 0.2 * lines + 0.5)))
    ax = axes_or_new(ax, (0, 0))
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_aspect("equal")
    return ax


def draw_points(
    ax: Axes,
    points: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    names: Sequence[str],
    shown: npt.NDArray[np.int64],
) -> Axes:
    """Draw points and a legend of the classes `shown`, which may include classes without points."""
    size = float(np.clip(12000 / len(points), 8, 36))
    drawn = [
        ax.scatter(
            points[labels == index, 0],
            points[labels == index, 1],
            s=size,
            color=class_color(index),
            marker=MARKERS[index % len(MARKERS)],
            # An edge separates points from each other and from a region of the same colour.
            edgecolors="0.15",
            linewidths=0.4,
        )
        for index in shown
    ]
    ax.set_xlabel("first feature")
    ax.set_ylabel("second feature")
    # Beside the points if the figure's layout makes room for it; otherwise it would be cut off.
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0, "frameon": False}
    ax.legend(
        drawn,
        [_wrapped(names[index]) for index in shown],
        fontsize=_LEGEND_POINTS,
        markerscale=math.sqrt(36 / size),
        ncols=_legend_columns(len(drawn)),
        **(beside if ax.figure.get_layout_engine() else {}),
    )
    return ax


def class_color(index: int) -> str:
    """The colour of a class, the same in all plots."""
    return COLORS[index % len(COLORS)]


def _legend_columns(entries: int) -> int:
    return math.ceil(entries / _LEGEND_ROWS)


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, 28)) or name
