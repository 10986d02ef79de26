"""The confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError
from nnbackend.plotting.checks import class_names
from nnbackend.plotting.figures import axes_or_new, inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_confusion"]

#: With more classes, the numbers would be too small to read, and only the colours are drawn.
_MOST_CLASSES_WITH_NUMBERS = 40


def plot_confusion(matrix: npt.ArrayLike, classes: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Plot a confusion matrix: counts, on cells coloured by the share of the true class.

    Parameters
    ----------
    matrix : (classes, classes) array_like of int
        The result of :func:`nnbackend.metrics.confusion_matrix`: rows are true classes, columns predicted classes.
    classes : sequence of str, optional
        Names of the classes. Default: 0, 1, 2, ...
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        The matrix is not square, contains other numbers than counts or only zeros, or has another number of classes
        than names.
    """
    counts = _check_counts(matrix)
    names = class_names(classes, len(counts))
    if len(names) != len(counts):
        raise InvalidInputError(f"the matrix has {len(counts)} classes, received {len(names)} names")
    side = float(np.clip(2.2 + 0.52 * len(names), 4.5, 20))
    ax = axes_or_new(ax, (side, side))

    # Colour by shares, so that rare classes are visible, and by their square roots, so that rare errors are.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(names))
    slanted = max(len(name) for name in names) > max(4, 36 // len(names))
    angle, end = (45, "right") if slanted else (0, "center")
    ax.set_xticks(ticks, names, rotation=angle, ha=end, rotation_mode="anchor" if slanted else "default")
    ax.set_yticks(ticks, names)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    correct, rows = int(np.trace(counts)), int(counts.sum())
    score = f"{correct:,} of {rows:,} correct ({100 * correct / rows:.2f} %)"
    ax.set_title(f"{score}\ncolour: share of the true class", fontsize="medium")
    if len(names) <= _MOST_CLASSES_WITH_NUMBERS:
        _write_counts(ax, counts, np.asarray(image.to_rgba(np.sqrt(shares))))
    return ax


def _check_counts(matrix: Any) -> npt.NDArray[np.int64]:
    values = as_host_array("matrix", matrix)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.size == 0:
        raise InvalidInputError(f"a confusion matrix must be square, received shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0).any() or (values != np.floor(values)).any():
        raise InvalidInputError("a confusion matrix must contain counts, received other numbers; do not normalise it")
    if not values.any():
        raise InvalidInputError("a confusion matrix must contain a count above 0, received only zeros")
    return values.astype(np.int64)


def _write_counts(ax: Axes, counts: npt.NDArray[np.int64], colors: npt.NDArray[Any]) -> None:
    # A digit is about 0.64 font sizes wide; the longest number should not fill its cell.
    cell = 72 * min(inches(ax)) / len(counts)
    fitting = 0.8 * cell / (0.64 * len(str(counts.max())))
    size = float(np.clip(min(90 / len(counts), fitting), 2, 10))
    for (row, column), count in np.ndenumerate(counts):
        # Zeros are grey, so that the errors stand out.
        color = "0.75" if count == 0 else _readable_on(colors[row, column, :3])
        ax.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=size)


def _readable_on(color: npt.NDArray[Any]) -> str:
    """Black or white, whichever has more contrast with a colour, by its relative luminance (WCAG 2.1)."""
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"
