"""Convert a drawing to an image like those of MNIST.

"The original black and white (bilevel) images from NIST were size normalized to fit in a 20x20 pixel box while
preserving their aspect ratio. The resulting images contain grey levels as a result of the anti-aliasing technique used
by the normalization algorithm. The images were centered in a 28x28 image by computing the center of mass of the pixels,
and translating the image so as to position this point at the center of the 28x28 field." (LeCun, Cortes, Burges: The
MNIST database of handwritten digits, http://yann.lecun.com/exdb/mnist/)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from nnbackend.errors import InvalidInputError
from nnbackend.support.checks import number

__all__ = ["MOST_POINTS", "SIDE", "check_strokes", "draw", "normalise"]

#: Side length of the image and of the box that holds the digit, in pixels.
SIDE = 28
BOX = 20

#: Most points of a drawing; a minute of drawing produces about 4,000.
MOST_POINTS = 10_000

#: Thickness of the pen, as a share of the longer side of the drawing. It makes lines 2.8 pixels wide when the drawing
#: fits the box: the median over MNIST's ones.
_PEN = 2.8 / (BOX - 2.8)

#: Factor by which strokes are drawn larger than the final image, for antialiasing.
_SUPERSAMPLING = 8

#: Smallest extent of a drawing, as a share of the pad; a single dot has none.
_SMALLEST = 0.02

Image8 = npt.NDArray[np.uint8]
Strokes = Sequence[npt.NDArray[np.float64]]


def check_strokes(strokes: Any) -> list[npt.NDArray[np.float64]]:
    """Check strokes parsed from JSON and convert them to arrays.

    Parameters
    ----------
    strokes : list of strokes, each a list of points ``[x, y]``
        Coordinates as shares of the pad's side, 0 to 1, from its upper left corner.

    Returns
    -------
    list of (points, 2) float64 arrays

    Raises
    ------
    InvalidInputError
        They have another structure, or too many points.
    """
    if not isinstance(strokes, list) or not all(isinstance(stroke, list) and stroke for stroke in strokes):
        raise InvalidInputError("strokes must be a list of strokes, each a list of one or more points [x, y]")
    count = sum(map(len, strokes))
    if count > MOST_POINTS:
        raise InvalidInputError(f"a drawing may have at most {MOST_POINTS:,} points, received {count:,}")
    return [np.array([_point(point) for point in stroke]) for stroke in strokes]


def _point(point: Any) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2:
        raise InvalidInputError(f"a point must be a list of two numbers [x, y], received {str(point)[:80]}")
    return number("x", point[0], low=0, high=1), number("y", point[1], low=0, high=1)


def draw(strokes: Strokes) -> Image8:
    """Draw strokes as white lines on black, in an image just large enough for them.

    Parameters
    ----------
    strokes : sequence of (points, 2) float arrays
        In any unit, the same for all.

    Returns
    -------
    (height, width) uint8
        0 or 255; an empty (0, 0) image if there are no strokes.
    """
    if not strokes:
        return np.zeros((0, 0), np.uint8)
    points = np.concatenate(strokes)
    corner, size = points.min(axis=0), np.ptp(points, axis=0)
    longer = max(float(size.max()), _SMALLEST)
    scale = BOX * _SUPERSAMPLING / ((1 + _PEN) * longer)
    pen = _PEN * longer * scale
    width, height = np.ceil(size * scale + pen).astype(int) + 1
    image = Image.new("L", (int(width), int(height)))
    pencil = ImageDraw.Draw(image)
    for stroke in strokes:
        line = [(float(x), float(y)) for x, y in (stroke - corner) * scale + pen / 2]
        pencil.line(line, fill=255, width=round(pen))
        for x, y in line:
            # Round the ends and corners.
            pencil.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return np.asarray(image)


def normalise(image: Image8) -> Image8:
    """Normalise a white digit on black, of any size and position, as MNIST's images were.

    Parameters
    ----------
    image : (height, width) uint8

    Returns
    -------
    (28, 28) uint8
        The digit is cropped, scaled with antialiasing so that its longer side has 20 pixels, and moved by whole pixels
        so that its centre of mass is in the middle (pixel 14 of 0 to 27, as in all images of MNIST). A black image
        stays black.
    """
    field = np.zeros((SIDE, SIDE), np.uint8)
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    if len(rows) == 0:
        return field
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cut.shape)
    height, width = (max(1, round(scale * side)) for side in cut.shape)
    small = np.asarray(Image.fromarray(cut).resize((width, height), Image.Resampling.BOX))
    if not small.any():  # too faint for a pixel of this size
        return field
    top, left = _place(small.sum(axis=1)), _place(small.sum(axis=0))
    field[top : top + height, left : left + width] = small
    return field


def _place(masses: npt.NDArray[Any]) -> int:
    """The first row (or column) that puts the centre of mass in the middle of the field."""
    centre = float(masses @ np.arange(len(masses))) / float(masses.sum())
    return min(max(round(SIDE / 2 - centre), 0), SIDE - len(masses))
