"""Learning curves of many networks on one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnbackend.plotting.figures import COLORS, MARKERS, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnbackend.training.history import History

__all__ = ["plot_many"]

_SIZE = (10.0, 4.2)
#: Networks with a colour and a name; of the others, there is a grey line.
_NAMED = 6
_MOST_MARKERS = 15


def plot_many(histories: Sequence[History], labels: Sequence[str]) -> tuple[Axes, ...]:
    """Plot validation loss and accuracy of many networks over the epochs.

    Parameters
    ----------
    histories : sequence of History
        The most important first: the first few get colours and names, the rest grey lines. Those without epochs are
        left out.
    labels : sequence of str
        The names of the networks.

    Returns
    -------
    tuple of Axes
    """
    known = {name for history in histories for name in history.names()}
    names = [name for name in ("val_loss", "val_accuracy", "val_binary_accuracy") if name in known]
    axes = new_axes(max(len(names), 1), _SIZE)
    for ax, name in zip(axes, names, strict=False):
        # From the last, so that the most important are on top.
        for place, (history, label) in reversed([*enumerate(zip(histories, labels, strict=True))]):
            _plot_line(ax, history, name, place, label, len(histories))
        _decorate(ax, name)
    handles, texts = axes[0].get_legend_handles_labels()
    # Drawn last, but read first.
    axes[0].figure.legend(
        handles[::-1],
        texts[::-1],
        loc="outside lower center",
        ncols=min(len(handles), 2) or 1,
        frameon=False,
        fontsize="small",
    )
    return tuple(axes)


def _plot_line(ax: Axes, history: History, name: str, place: int, label: str, count: int) -> None:
    scale = 100 if name.endswith("accuracy") else 1
    points = [
        (metrics["epoch"], scale * metrics[name])
        for metrics in history.epochs
        if math.isfinite(metrics.get(name, math.nan))
    ]
    if not points:
        return
    style: dict[str, Any] = {"color": "#BBBBBB", "linewidth": 0.8}
    if place < _NAMED:
        every = -(-len(points) // _MOST_MARKERS)
        style = {
            "color": COLORS[place],
            "marker": MARKERS[place],
            "markersize": 4,
            "markevery": every,
            "linewidth": 2 if place == 0 else 1.2,
            "label": label,
        }
    elif place == count - 1:
        style["label"] = f"the other {count - _NAMED}"
    ax.plot(*zip(*points, strict=True), **style)


def _decorate(ax: Axes, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    if name.endswith("accuracy"):
        ax.set_ylabel(f"{name.replace('val_', 'validation ').replace('_', ' ')} (%)")
    else:
        # The losses of good and bad networks differ by orders of magnitude.
        ax.set_yscale("log")
        ax.set_ylabel("validation loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(alpha=0.3, which="both")
