"""What all pictures share: new figures, the palette, the file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.errors import InvalidInputError
from nnbackend.support.extras import install_command
from nnbackend.support.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "MARKERS", "axes_or_new", "inches", "new_axes", "save_figure", "text_width"]

#: Of Okabe and Ito, which people with any colour blindness can tell apart; the last two are Paul Tol's wine and
#: indigo, which stay as far from the eight as these are from each other.
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

#: One more than there are colours, so that where both start again they pair up differently.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "*")

#: How much wider a text gets as every letter is put on a whole pixel.
_ROUNDING = 1.1


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The caller's Axes, or those of a new figure of `size` inches.

    Raises
    ------
    InvalidInputError
        `ax` is something else.
    ImportError
        Matplotlib is missing.
    """
    if ax is None:
        return new_axes(1, size)[0]
    with _matplotlib_needed():
        from matplotlib.axes import Axes
    if not isinstance(ax, Axes):
        raise InvalidInputError(f"ax must be matplotlib Axes, received {type(ax).__name__}; leave it out for new ones")
    return ax


def new_axes(count: int, size: tuple[float, float]) -> list[Axes]:
    """Axes side by side on a new figure of `size` inches."""
    with _matplotlib_needed():
        from nnbackend.plotting.picture import Picture
    figure = Picture(figsize=size, layout="constrained")
    return list(np.ravel(figure.subplots(1, count, squeeze=False)))


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height of Axes, before a layout may shrink them a little."""
    box = ax.get_window_extent()
    dpi = ax.figure.dpi
    return box.width / dpi, box.height / dpi


def text_width(text: str, points: float) -> float:
    """Inches that the longest line of a text takes at most."""
    with _matplotlib_needed():
        from matplotlib.textpath import TextPath
    lines = [line for line in text.split("\n") if line.strip()]
    widest = max((TextPath((0, 0), line, size=points).get_extents().width for line in lines), default=0.0)
    return _ROUNDING * float(widest) / 72


def save_figure(ax: Axes, path: str | os.PathLike[str]) -> None:
    """Write the figure that holds these axes as a PNG file; a crash never leaves half of one.

    Parameters
    ----------
    ax : Axes
    path : str or path-like
        Its folder is made if it is missing.

    Raises
    ------
    InvalidInputError
        The name is not that of a PNG file.
    OSError
        As the operating system gave it; a file that was there is as it was.
    """
    if not os.fspath(path).lower().endswith(".png"):
        raise InvalidInputError(f"pictures are PNG files; give a name that ends in .png, received {os.fspath(path)!r}")
    figure: Any = ax.figure
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
