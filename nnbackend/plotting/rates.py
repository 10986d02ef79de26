"""The search for a learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.errors import InvalidInputError, shown
from nnbackend.plotting.checks import check_finite
from nnbackend.plotting.figures import COLORS, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_learning_rates"]

_SIZE = (4.8, 3.8)


def plot_learning_rates(found: Any, ax: Axes | None = None) -> Axes:
    """Plot the loss over the learning rates of a search, and the suggested rate.

    Parameters
    ----------
    found : (suggestion, rates, losses)
        The result of :func:`nnbackend.find_learning_rate`.
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        It is not such a result.
    """
    if not isinstance(found, tuple) or len(found) != 3:
        raise InvalidInputError(f"plot_learning_rates takes what find_learning_rate returned, received {shown(found)}")
    suggestion, rates, losses = found[0], np.asarray(found[1]), np.asarray(found[2])
    if rates.ndim != 1 or rates.shape != losses.shape or not len(rates):
        raise InvalidInputError(
            f"rates and losses must be two vectors of one length, received shapes {rates.shape} and {losses.shape}"
        )
    check_finite("the losses", losses)
    ax = axes_or_new(ax, _SIZE)
    ax.plot(rates, losses, color=COLORS[0], linewidth=1.8)
    ax.axvline(suggestion, color=COLORS[1], linestyle="--", label=f"suggestion: {suggestion:.2g}")
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss, smoothed")
    # What diverges would hide the rest.
    low, high = float(losses.min()), float(losses[0])
    ax.set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax
