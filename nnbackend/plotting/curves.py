"""Learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.errors import InvalidInputError
from nnbackend.plotting.figures import COLORS, axes_or_new, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnbackend.training.history import History

__all__ = ["plot_accuracy", "plot_curves", "plot_loss"]

_SIZE = (4.8, 3.8)
_TRAINING: dict[str, Any] = {"color": COLORS[0], "marker": "o", "linestyle": "-"}
_VALIDATION: dict[str, Any] = {"color": COLORS[1], "marker": "s", "linestyle": "--"}
#: With more markers, they would hide the line.
_MOST_MARKERS = 25


def plot_loss(history: History, ax: Axes | None = None) -> Axes:
    """Plot the training and validation loss over the epochs.

    Parameters
    ----------
    history : History
        The result of `Network.fit`.
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        The history has no epochs.
    """
    _check(history)
    return _plot_metric(axes_or_new(ax, _SIZE), history, "loss", "loss", 1.0)


def plot_accuracy(history: History, ax: Axes | None = None) -> Axes:
    """Plot the training and validation accuracy, in per cent, over the epochs.

    Parameters
    ----------
    history : History
        The result of `Network.fit`.
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        The history has no epochs or no accuracy; accuracy is recorded if the targets are classes.
    """
    name = _accuracy_name(history)
    if not name:
        raise InvalidInputError(
            f"the history has no accuracy, only {', '.join(history.names())}; accuracy is recorded if the targets are "
            "classes: plot the loss with plot_loss"
        )
    return _plot_metric(axes_or_new(ax, _SIZE), history, name, f"{name.replace('_', ' ')} (%)", 100.0)


def plot_curves(history: History, ax: Sequence[Axes] | Axes | None = None) -> tuple[Axes, ...]:
    """Plot the loss and, if the history has one, the accuracy side by side; see `plot_loss` and `plot_accuracy`.

    Parameters
    ----------
    history : History
        The result of `Network.fit`.
    ax : Axes or sequence of Axes, optional
        The Axes to draw on, the first for the loss, the second, if there is one, for the accuracy. Default: a new
        figure.

    Returns
    -------
    tuple of Axes
        The Axes of the loss and, if it was drawn, of the accuracy.

    Raises
    ------
    InvalidInputError
        The history has no epochs, or there are no axes.
    """
    pictures = [plot_loss, plot_accuracy] if _accuracy_name(history) else [plot_loss]
    width, height = _SIZE
    if ax is None:
        axes = new_axes(len(pictures), (width * len(pictures), height))
    else:
        axes = [axes_or_new(one, _SIZE) for one in np.ravel(np.asarray(ax, dtype=object))]
    if not axes:
        raise InvalidInputError("ax must be Axes or a sequence of them, received none")
    return tuple(plot(history, target) for plot, target in zip(pictures, axes, strict=False))


def _check(history: History) -> None:
    if not getattr(history, "epochs", None):
        raise InvalidInputError(
            f"there is nothing to plot: the history has no epochs, received {history!r}; give the result of Network.fit"
        )


def _accuracy_name(history: History) -> str:
    _check(history)
    return next((name for name in ("accuracy", "binary_accuracy") if name in history.names()), "")


def _plot_metric(ax: Axes, history: History, name: str, label: str, scale: float) -> Axes:
    from matplotlib.ticker import MaxNLocator

    # A training metric is the mean over an epoch in which the network changes, so it lags behind.
    for key, legend, style in (
        (name, "training, mean over the epoch", _TRAINING),
        (f"val_{name}", "validation, after the epoch", _VALIDATION),
    ):
        points = [(metrics["epoch"], scale * metrics[key]) for metrics in history.epochs if key in metrics]
        if points:
            every = -(-len(points) // _MOST_MARKERS)
            ax.plot(*zip(*points, strict=True), label=legend, markersize=4, markevery=every, **style)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax
