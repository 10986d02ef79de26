"""Bar charts for comparing numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnbackend.errors import InvalidInputError
from nnbackend.plotting.checks import plain
from nnbackend.plotting.figures import COLORS, axes_or_new
from nnbackend.support.checks import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_bars"]

_NAME_CHARACTERS = 32
#: Light enough for an error bar to be visible on it.
_COLOR = COLORS[5]


def plot_bars(
    values: Mapping[str, float],
    ax: Axes | None = None,
    label: str = "",
    errors: Mapping[str, tuple[float, float]] | None = None,
    log: bool = False,
) -> Axes:
    """Plot a horizontal bar for each number, the first on top, labelled with its value.

    Parameters
    ----------
    values : mapping of name to number
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.
    label : str
        Label of the axis, with the unit: ``"training speed (samples/s)"``.
    errors : mapping of name to (low, high), optional
        Ends of the error bars, such as the slowest and the fastest round. Bars without an entry have none.
    log : bool
        Use a logarithmic axis.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        There are no values, a value is not finite (or not above zero on a logarithmic axis), or an error bar has no
        value or does not include it.
    """
    bars = _check_values(values, log)
    whiskers = _check_whiskers(errors or {}, bars, log)
    names = ["\n".join(textwrap.wrap(name, _NAME_CHARACTERS)) or name for name in map(plain, bars)]
    lines = sum(1 + name.count("\n") for name in names)
    ax = axes_or_new(ax, (6.4, 0.7 + 0.15 * len(names) + 0.17 * lines))

    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    places = range(len(names))
    ax.barh(places, list(bars.values()), height=0.6, color=_COLOR, log=log)
    for place, (name, value) in enumerate(bars.items()):
        low, high = whiskers.get(name, (value, value))
        if name in whiskers:
            ax.errorbar(value, place, xerr=[[value - low], [high - value]], color="black", capsize=3, linewidth=1)
        end, side = (low, -1) if value < 0 else (high, 1)
        ax.annotate(
            _format(value),
            (end, place),
            xytext=(5 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
        )
    if min(bars.values()) < 0:
        ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right"]].set_visible(False)
    if log:
        # A logarithmic axis has no zero; start it so that the shortest bar remains visible.
        ends = [*bars.values(), *(end for whisker in whiskers.values() for end in whisker)]
        room = max(2.0, (max(ends) / min(ends)) ** 0.15)
        ax.set_xlim(min(ends) / room, max(ends) * room)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(ends) < 50 * min(ends) else (1,)))
    else:
        ax.margins(x=0.15)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _abbreviate(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(label)
    return ax


def _check_values(values: Any, log: bool) -> dict[str, float]:
    if not isinstance(values, Mapping) or not values:
        raise InvalidInputError(f"values must map at least one name to a number, received {values!r}")
    bars = {str(name): number(f"the value of {name!r}", value) for name, value in values.items()}
    if len(bars) < len(values):
        raise InvalidInputError(f"two bars have the same name: received {', '.join(map(repr, values))}")
    if log and min(bars.values()) <= 0:
        name = min(bars, key=bars.__getitem__)
        raise InvalidInputError(f"a logarithmic axis cannot show {bars[name]:g} ({name!r}); use log=False")
    return bars


def _check_whiskers(errors: Any, bars: Mapping[str, float], log: bool) -> dict[str, tuple[float, float]]:
    if not isinstance(errors, Mapping):
        raise InvalidInputError(f"errors must map names to (low, high), received {errors!r}")
    whiskers = {}
    for name, ends in errors.items():
        if str(name) not in bars:
            raise InvalidInputError(f"errors has an entry for {name!r}, but the bars are {', '.join(bars)}")
        try:
            low, high = (number(f"the error bar of {name!r}", end) for end in ends)
        except (TypeError, ValueError):
            raise InvalidInputError(f"the error bar of {name!r} must be (low, high), received {ends!r}") from None
        if not low <= bars[str(name)] <= high or (log and low <= 0):
            raise InvalidInputError(
                f"the error bar of {name!r} must include its value {bars[str(name)]:g}"
                f"{' and be above 0 on a logarithmic axis' if log else ''}, received {ends!r}"
            )
        whiskers[str(name)] = low, high
    return whiskers


def _format(value: float) -> str:
    """A number with thousands separators instead of an exponent, and a minus sign instead of a hyphen."""
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _abbreviate(value: float) -> str:
    """A number abbreviated for tick labels: 200k, 1.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if size <= abs(value) < 1e9:
            return f"{_format(value / size)}{letter}"
    return _format(value)
