"""Figures, palette and files of all plots."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.errors import InvalidInputError
from nnbackend.support.extras import install_command
from nnbackend.support.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "MARKERS", "axes_or_new", "inches", "new_axes", "save_figure", "text_width"]

#: The palette of Okabe and Ito, which colour-blind people can distinguish, and Paul Tol's wine and indigo, which differ
#: from these eight as much as they differ from each other.
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#F0E442",
    "#882255",
    "#332288",
)

#: One more than there are colours, so that colours and markers pair up differently in every cycle.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "*")

#: Factor by which text gets wider when every letter starts on a whole pixel.
_ROUNDING = 1.1


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The given Axes, or those of a new figure of `size` inches.

    Raises
    ------
    InvalidInputError
        `ax` is neither Axes nor None.
    ImportError
        Matplotlib is not installed.
    """
    if ax is None:
        return new_axes(1, size)[0]
    with _matplotlib_needed():
        from matplotlib.axes import Axes
    if not isinstance(ax, Axes):
        raise InvalidInputError(f"ax must be matplotlib Axes, received {type(ax).__name__}; omit it for a new figure")
    return ax


def new_axes(count: int, size: tuple[float, float]) -> list[Axes]:
    """`count` Axes side by side on a new figure of `size` inches."""
    with _matplotlib_needed():
        from nnbackend.plotting.picture import Picture
    figure = Picture(figsize=size, layout="constrained")
    return list(np.ravel(figure.subplots(1, count, squeeze=False)))


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height of Axes in inches, before the layout may shrink them a little."""
    box = ax.get_window_extent()
    dpi = ax.figure.dpi
    return box.width / dpi, box.height / dpi


def text_width(text: str, points: float) -> float:
    """An upper bound of the width of a text's longest line, in inches."""
    with _matplotlib_needed():
        from matplotlib.textpath import TextPath
    lines = [line for line in text.split("\n") if line.strip()]
    widest = max((_path_width(TextPath((0, 0), line, size=points)) for line in lines), default=0.0)
    return _ROUNDING * float(widest) / 72


def _path_width(path: Any) -> float:
    """The width of a path's extents, whose own method takes a millisecond per letter."""
    x, codes = path.vertices[:, 0], np.asarray(path.codes)
    if (codes == path.CURVE4).any():
        return float(path.get_extents().width)
    reached = x[(codes == path.MOVETO) | (codes == path.LINETO)]
    # Each curve is a control point and an end; it reaches farthest where its derivative is 0.
    control = np.flatnonzero(codes == path.CURVE3)[::2]
    start, middle, end = x[control - 1], x[control], x[control + 1]
    bend = start - 2 * middle + end
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num((start - middle) / bend, nan=0.0, posinf=0.0, neginf=0.0).clip(0, 1)
    turn = (1 - t) ** 2 * start + 2 * (1 - t) * t * middle + t**2 * end
    reached = np.concatenate([reached, end, turn])
    return float(np.ptp(reached))


def save_figure(ax: Axes | Sequence[Axes], path: str | os.PathLike[str]) -> None:
    """Write the figure of these Axes as a PNG file, completely or not at all.

    Parameters
    ----------
    ax : Axes or sequence of Axes
        What a plot returned. The whole figure is written, with all its Axes.
    path : str or path-like
        Its folder is created if it is missing.

    Raises
    ------
    InvalidInputError
        The name does not end in ``.png``.
    OSError
        The file cannot be written; an existing file is unchanged.
    """
    if not os.fspath(path).lower().endswith(".png"):
        raise InvalidInputError(f"the name of a picture must end in .png, received {os.fspath(path)!r}")
    figure: Any = (ax[0] if isinstance(ax, Sequence) else ax).figure
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    with atomic_write(path) as stream:
        stream.write(picture.getvalue())


@contextmanager
def _matplotlib_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError(f"pictures need the package matplotlib: {install_command('plot')}") from error
