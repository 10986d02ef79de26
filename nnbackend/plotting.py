"""Pictures of training runs, with matplotlib (extra ``demo``).

Figures are made as objects and not through pyplot: no display is needed, no window opens and the caller's backend
stays as it is. A notebook shows one that ends a cell: ``plot_curves(history)[0].figure``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError
from nnbackend.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnbackend.training.history import History

__all__ = ["plot_confusion", "plot_curves", "save_figure"]

# Of Okabe and Ito's palette, which people with any colour blindness can tell apart.
_TRAINING: dict[str, Any] = {"color": "#0072B2", "marker": "o", "linestyle": "-"}
_VALIDATION: dict[str, Any] = {"color": "#D55E00", "marker": "s", "linestyle": "--"}

#: From here on the numbers would be too small to read, and only the colours are left.
_MOST_CLASSES_WITH_NUMBERS = 40


def plot_curves(history: History, ax: Sequence[Axes] | Axes | None = None) -> tuple[Axes, ...]:
    """Loss and accuracy over the epochs, in training and on the validation data.

    Parameters
    ----------
    history : History
    ax : Axes or sequence of Axes, optional
        Where to draw: the loss in the first, the accuracy in the second; one alone gets the loss. A new figure if
        not given.

    Returns
    -------
    tuple of Axes
        That of the loss, then that of the accuracy if it was drawn.

    Raises
    ------
    InvalidInputError
        The history has no epochs, or there are no axes.
    """
    if not history.epochs:
        raise InvalidInputError("there is nothing to plot: the history has no epochs")
    figures = [("loss", "loss", 1.0)]
    for name in ("accuracy", "binary_accuracy"):
        if name in history.names():
            figures.append((name, f"{name.replace('_', ' ')} (%)", 100.0))
    axes = _as_axes(ax, len(figures))
    for target, (name, label, scale) in zip(axes, figures, strict=False):
        _plot_figure(target, history, name, label, scale)
    return tuple(axes[: len(figures)])


def plot_confusion(matrix: npt.ArrayLike, classes: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """How often each class was taken for each, as counts over colours.

    Parameters
    ----------
    matrix : (classes, classes) array_like of int
        As :func:`nnbackend.metrics.confusion_matrix` counts it: a row is a true class, a column a predicted one.
    classes : sequence of str, optional
        Names of the classes; 0, 1, 2, ... if not given.
    ax : Axes, optional
        Where to draw; a new figure if not given.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        The matrix is not square, counts nothing, or the names do not match it.
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0 or counts.sum() == 0:
        raise InvalidInputError(f"a confusion matrix is square and counts something, received shape {counts.shape}")
    names = [str(index) for index in range(len(counts))] if classes is None else [str(name) for name in classes]
    if len(names) != len(counts):
        raise InvalidInputError(f"the matrix has {len(counts)} classes, received {len(names)} names")
    if ax is None:
        side = float(np.clip(2.2 + 0.52 * len(names), 4.5, 20))
        ax = _new_axes(1, (side, side))[0]

    # Shares and not counts, so that rare classes show too; its root, so that the few errors of a good network do.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(names))
    slanted = max(len(name) for name in names) > max(4, 36 // len(names))
    angle, end = (45, "right") if slanted else (0, "center")
    ax.set_xticks(ticks, names, rotation=angle, ha=end, rotation_mode="anchor" if slanted else "default")
    ax.set_yticks(ticks, names)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    right, rows = int(np.trace(counts)), int(counts.sum())
    score = f"{right:,} of {rows:,} right ({100 * right / rows:.2f} %)"
    ax.set_title(f"{score}\ncolour: share of the true class", fontsize="medium")
    if len(names) <= _MOST_CLASSES_WITH_NUMBERS:
        _write_counts(ax, counts, np.asarray(image.to_rgba(np.sqrt(shares))))
    return ax


def save_figure(ax: Axes, path: str | os.PathLike[str]) -> None:
    """Write the figure that holds these axes as a PNG file; a crash never leaves half of one.

    Parameters
    ----------
    ax : Axes
    path : str or path-like
    """
    figure: Any = ax.figure
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    with atomic_write(path) as stream:
        stream.write(picture.getvalue())


def _plot_figure(ax: Axes, history: History, name: str, label: str, scale: float) -> None:
    from matplotlib.ticker import MaxNLocator

    # In training a figure is the mean over an epoch while the network changes, so it lags behind.
    for key, legend, style in (
        (name, "training, mean over the epoch", _TRAINING),
        (f"val_{name}", "validation, after the epoch", _VALIDATION),
    ):
        points = [(figures["epoch"], scale * figures[key]) for figures in history.epochs if key in figures]
        if points:
            ax.plot(*zip(*points, strict=True), label=legend, markersize=4, **style)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)


def _write_counts(ax: Axes, counts: npt.NDArray[Any], colors: npt.NDArray[Any]) -> None:
    size = float(np.clip(90 / len(counts), 4, 10))
    for (row, column), count in np.ndenumerate(counts):
        # Zeros stay in the background, or they would drown the errors.
        color = "0.75" if count == 0 else _readable_on(colors[row, column, :3])
        ax.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=size)


def _readable_on(color: npt.NDArray[Any]) -> str:
    """Black or white, whichever contrasts more with a colour, by its relative luminance (WCAG 2.1)."""
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def _as_axes(ax: Sequence[Axes] | Axes | None, wanted: int) -> list[Axes]:
    if ax is None:
        return _new_axes(wanted, (4.8 * wanted, 3.8))
    axes = list(np.ravel(np.asarray(ax, dtype=object)))
    if not axes:
        raise InvalidInputError("ax must be Axes or a sequence of them, received none")
    return axes


def _new_axes(count: int, size: tuple[float, float]) -> list[Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need the package matplotlib: pip install "nnbackend[demo]"') from error
    figure = Figure(figsize=size, layout="constrained")
    return list(np.ravel(figure.subplots(1, count, squeeze=False)))
