"""Small images in rows and columns, each with a caption, all in one Axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.plotting.figures import axes_or_new, inches, text_width
from nnbackend.support.checks import positive_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CAPTION_CHARACTERS", "draw_signed_tiles", "draw_tiles"]

_GAP = 0.1
_POINTS = 9
#: Most characters in a line of a caption.
CAPTION_CHARACTERS = 16
_LINE = 1.25 * _POINTS / 72
_TITLE_LINE = 0.2
#: Longest side of a new figure, in inches; larger contents are scaled down.
_LARGEST = 20.0
#: Smallest width of a new figure in inches, which leaves room for a title.
_NARROWEST = 3.4


def draw_tiles(
    ax: Axes | None,
    tiles: npt.NDArray[Any],
    captions: Sequence[str] = (),
    columns: int | None = None,
    title: str = "",
    beside: float = 0.0,
    **colors: Any,
) -> Axes:
    """Draw (n, height, width) images.

    The layout is computed in inches of a new figure, in which the longer side of a tile is one inch. In given Axes,
    everything including the captions is scaled down to the available size.

    Parameters
    ----------
    ax : Axes or None
        None creates a new figure.
    tiles : (n, height, width) array
    captions : sequence of str
        One for each tile, or none.
    columns : int, optional
        Default: about twice the number of rows.
    title : str
    beside : float
        Free space at the right of a new figure, in inches.
    **colors
        ``cmap``, ``vmin``, ``vmax``: the same for all tiles.
    """
    count, rows_of_pixels, columns_of_pixels = tiles.shape
    if columns is None:
        rows = math.ceil(count / math.ceil(math.sqrt(2 * count)))
        columns = math.ceil(count / rows)
    columns = min(positive_integer("columns", columns), count)
    rows = math.ceil(count / columns)

    captions = [_wrapped(caption) for caption in captions]
    longest = max(rows_of_pixels, columns_of_pixels)
    width, height = columns_of_pixels / longest, rows_of_pixels / longest
    cell = _GAP + max([width, *(text_width(caption, _POINTS) for caption in captions)])
    band = _GAP + _LINE * max((caption.count("\n") + 1 for caption in captions), default=0)
    total = columns * cell, rows * (height + band)

    scale = min(1.0, _LARGEST / max(total))
    room = 0.1 + _TITLE_LINE * (title.count("\n") + 1 if title else 0)
    new = ax is None
    ax = axes_or_new(ax, (max(scale * total[0] + 0.1, _NARROWEST) + beside, scale * total[1] + room))
    if not new:
        # The layout may still shrink the given Axes a little.
        scale = min(1.0, *(0.9 * available / needed for available, needed in zip(inches(ax), total, strict=True)))
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        middle, top = (column + 0.5) * cell, row * (height + band)
        ax.imshow(tile, extent=(middle - width / 2, middle + width / 2, top + height, top), **colors)
        if captions:
            below = top + height + _GAP / 4
            ax.text(middle, below, captions[index], ha="center", va="top", fontsize=scale * _POINTS)
    ax.set_xlim(0, total[0])
    ax.set_ylim(total[1], 0)
    ax.set_axis_off()
    ax.set_title(title, fontsize="medium")
    # Anchor at the top: if the tiles were centred in their space, the layout would misjudge the extent of the title.
    ax.set_anchor("NE" if beside else "N")
    return ax


def draw_signed_tiles(
    ax: Axes | None, tiles: npt.NDArray[Any], title: str, label: str, columns: int | None = None
) -> Axes:
    """Draw (n, height, width) images of numbers, positive ones red and negative ones blue, with a colour bar.

    Parameters
    ----------
    ax : Axes or None
        None creates a new figure.
    tiles : (n, height, width) array
    title : str
    label : str
        Of the colour bar.
    columns : int, optional
        As for `draw_tiles`.
    """
    # Limit the scale to a quantile, because a few very large numbers would make all others pale.
    magnitudes = np.abs(tiles)
    largest = float(np.quantile(magnitudes, 0.995, method="higher")) or float(magnitudes.max()) or 1.0
    ax = draw_tiles(ax, tiles, (), columns, title, beside=1.0, cmap="RdBu_r", vmin=-largest, vmax=largest)

    from matplotlib.ticker import MaxNLocator

    # Inset Axes keep the colour bar as high as the tiles for any layout.
    bar = ax.inset_axes((1.02, 0, 0.03, 1))
    extend = "both" if magnitudes.max() > largest else "neither"
    # Fix the number of ticks: if it depended on the final height, the labels could outgrow the space measured for them.
    ticks = MaxNLocator(int(np.clip(2 * inches(ax)[1], 2, 8)))
    ax.figure.colorbar(ax.images[0], cax=bar, label=label, extend=extend, ticks=ticks)
    return ax


def _wrapped(caption: str) -> str:
    lines = [textwrap.wrap(line, CAPTION_CHARACTERS, break_long_words=False) for line in caption.split("\n")]
    return "\n".join(part for line in lines for part in line)
