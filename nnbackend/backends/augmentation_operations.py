"""The operations of the contract that change images at random, declared as in :mod:`nnbackend.backends.operations`.

All random numbers are words of Philox4x32-10, see :meth:`~nnbackend.Backend.dropout`: a pure function of the seed, a
stream, the step and the position in the batch, so that every backend, every thread and every rank draws the same
images. A word w stands for the number ``u = w / 2**32``, which is uniform in [0, 1).
"""

from __future__ import annotations

from typing import Final

from nnbackend.backends.declaration import COUNTER, Array, constant, operation, reads, writes
from nnbackend.backends.training_operations import lacking

__all__ = ["TRANSFORMATIONS", "AugmentationOperations"]

#: The kinds of transformations in a chain, in the order of their numbers; see `draw_transforms`.
TRANSFORMATIONS: Final = ("shift", "rotate", "scale", "flip_horizontal", "flip_vertical")

_SEED = constant("0 <= seed < 2**63.")
_FIRST_ROW = constant("Number of rows of the batch that lower ranks have.")
_IMAGE = ("rows", "height", "width", "channels")


class AugmentationOperations:
    """Random transformations of images."""

    @operation(
        "forward",
        splits=("rows",),
        chain=reads(
            "length",
            4,
            dtype="float64",
            about="For each transformation, in the order of application: its kind (0 shift, 1 rotate, 2 scale, 3 "
            "flip_horizontal, 4 flip_vertical), two parameters, and its stream of random numbers, 0 <= stream < 2**32.",
        ),
        height=constant("Rows of an image."),
        width=constant("Columns of an image."),
        seed=_SEED,
        counter=COUNTER,
        out=writes("rows", 6, dtype="float64"),
        first_row=_FIRST_ROW,
    )
    def draw_transforms(
        self, chain: Array, height: int, width: int, seed: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        """Draw an affine transformation for each image, as the map from a position in the result to its source.

        With ``a, b, c, d, e, f = out[i]``, the pixel at row y and column x of the result is the image's value at row
        ``a y + b x + c`` and column ``d y + e x + f``. Transformation k of the chain, with parameters p and q, draws
        u and v, the first two words of the Philox block with key ``(seed, seed >> 32)`` and counter ``(first_row + i,
        stream, step, step >> 32)``, where ``step = counter[1]``. It maps the position (y, x) relative to the centre of
        the image, ``((height - 1) / 2, (width - 1) / 2)``, to

        * shift: ``(y - p (2 u - 1), x - q (2 v - 1))``;
        * rotate, by the angle ``t = p (2 u - 1)`` in radians: ``(y cos t + x sin t, x cos t - y sin t)``;
        * scale, by the factor ``s = p + (q - p) u``: ``(y / s, x / s)``;
        * flip_horizontal: ``(y, -x)`` if ``u < p``; flip_vertical: ``(-y, x)`` if ``u < p``.

        The last transformation is applied to the position first. All is computed in float64.
        """
        raise lacking(self, "draw_transforms")

    @operation(
        "forward",
        splits=("rows",),
        kernel=reads("taps", about="Weights of the smoothing, an odd number of them."),
        alpha=constant("Factor of the displacements, in pixels."),
        seed=_SEED,
        stream=constant("Stream of random numbers, 0 <= stream < 2**32."),
        counter=COUNTER,
        out=writes("rows", "height", "width", 2),
        first_row=constant("Number of rows of the batch that lower ranks have; below 2**32 / (2 height width)."),
    )
    def draw_displacements(
        self, kernel: Array, alpha: float, seed: int, stream: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        """Draw a smooth field of displacements for each image (Simard, Steinkraus and Platt 2003).

        ``out[i, y, x] = alpha * sum over j, k of kernel[j] kernel[k] noise[i, y + j - r, x + k - r]`` with ``taps = 2 r
        + 1``, where the noise is 0 outside of the image. ``out[..., 0]`` is the displacement of the row and ``out[...,
        1]`` that of the column. The noise is ``2 u - 1``, with the word that :meth:`~nnbackend.Backend.dropout` uses
        for element ``e = (((first_row + i) height + y) width + x) 2 + axis``. The sum over k is computed first.
        """
        raise lacking(self, "draw_displacements")

    @operation(
        "forward",
        splits=("rows",),
        x=reads(*_IMAGE),
        transforms=reads("rows", 6, dtype="float64", optional=True, about="See `draw_transforms`; None: the identity."),
        displacements=reads("rows", "height", "width", 2, optional=True, about="See `draw_displacements`."),
        out=writes(*_IMAGE),
    )
    def resample(self, x: Array, transforms: Array | None, displacements: Array | None, out: Array) -> None:
        """Images at other positions: ``out[i, y, x]`` is image i at the position that the displacement and then the
        transform make of (y, x).

        The value at a position between pixels is the bilinear interpolation of the four around it, rows after columns;
        pixels outside the image are 0. Positions are computed in float64. A weight of 0 does not hide NaN or infinity.
        """
        raise lacking(self, "resample")
