"""Cases of the acceptance suite for random transformations of images."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.augmentation_operations import TRANSFORMATIONS
from nnbackend.backends.contract import HostArray
from nnbackend.testing.lab import Lab, case

__all__: list[str] = []

#: Largest difference of transforms, relative to the size of an image: sines and cosines may round differently.
_EXACT = 1e-12

_LAST_STREAM = 2**32 - 1

#: Two parameters of each transformation.
_PARAMETERS = {
    "shift": (2.0, 3.0),
    "rotate": (0.5, 0.0),
    "scale": (0.8, 1.3),
    "flip_horizontal": (0.5, 0.0),
    "flip_vertical": (0.25, 0.0),
}


def _images(lab: Lab) -> int:
    return min(lab.shape.rows, 9)


def _counter(step: int) -> HostArray:
    return np.array([1, step, 2], np.int64)


def _chain(*kinds: str) -> HostArray:
    rows = [(TRANSFORMATIONS.index(kind), *_PARAMETERS[kind], _LAST_STREAM - n) for n, kind in enumerate(kinds)]
    return np.array(rows, np.float64).reshape(-1, 4)


def _draw(lab: Lab, kinds: tuple[str, ...], seed: int, step: int, first_row: int = 0) -> HostArray:
    height, width = 5 + lab.shape.inputs % 7, 4 + lab.shape.outputs % 9
    out = np.full((_images(lab), 6), 1234.5)
    drawn = lab.run("draw_transforms", _chain(*kinds), height, width, seed, _counter(step), out, first_row)[-1]
    return drawn


@case
def transforms_of_every_kind(lab: Lab) -> None:
    for kinds in (*((kind,) for kind in TRANSFORMATIONS), ("shift", "rotate", "scale", "flip_horizontal", "shift")):
        for seed, step in ((0, 0), (2**63 - 1, 1), (2**40 + 5, 2**33 + 1)):
            _draw(lab, kinds, seed, step)


@case
def transforms_agree_to_rounding(lab: Lab) -> None:
    """Also in a network in float32, they are drawn and composed in float64."""
    exact = Lab(lab.backend, "float64", lab.shape)
    exact.tolerance = _EXACT
    _draw(exact, ("rotate", "shift", "scale", "flip_vertical", "rotate"), 7, 3)


@case
def transforms_belong_to_rows_of_the_batch(lab: Lab) -> None:
    kinds = ("shift", "rotate", "flip_horizontal")
    whole = _draw(lab, kinds, 11, 4)
    later = _draw(lab, kinds, 11, 4, first_row=2)
    count = len(whole) - 2
    assert np.array_equal(later[: max(count, 0)], whole[2:]), "first_row does not continue the rows of other ranks"


@case
def displacements(lab: Lab) -> None:
    count = _images(lab)
    for (height, width), taps in (((5, 7), 3), ((4, 3), 1), ((6, 5), 9), ((1, 2), 5), ((9, 8), 25)):
        kernel = lab.uniform(taps, low=0.1)
        kernel /= kernel.sum()
        for seed, stream, step, first_row in ((0, 0, 0, 0), (2**63 - 1, _LAST_STREAM, 2**33 + 1, 3)):
            out = lab.blank(count, height, width, 2)
            lab.run("draw_displacements", kernel, 3.5, seed, stream, _counter(step), out, first_row)


@case
def displacements_belong_to_rows_of_the_batch(lab: Lab) -> None:
    kernel = np.array([0.25, 0.5, 0.25], lab.dtype)
    # An image of 3 x 3 has 18 numbers, so that images begin within a block of four.
    whole, later = (
        lab.run("draw_displacements", kernel, 2.0, 5, 6, _counter(7), lab.blank(count, 3, 3, 2), first)[-1]
        for count, first in ((4, 0), (3, 1))
    )
    assert np.array_equal(later, whole[1:]), "first_row does not continue the rows of other ranks"


@case
def images_at_other_positions(lab: Lab) -> None:
    count = _images(lab)
    for (height, width), channels in (((7, 5), 1), ((4, 6), 3), ((1, 1), 2), ((9, 17), min(lab.shape.inputs, 5))):
        x = lab.normal(count, height, width, channels)
        # Some positions are far outside of the image, and some hardly move.
        moved = np.eye(2, 3).reshape(6) + np.linspace(0.01, 1, count)[:, None] * lab.normal(count, 6).astype(np.float64)
        moved[:, [2, 5]] *= height
        fields = lab.normal(count, height, width, 2)
        for transforms, field in ((moved, None), (None, fields), (moved, fields), (None, None)):
            lab.run("resample", x, transforms, field, lab.blank(count, height, width, channels))


@case
def exact_positions(lab: Lab) -> None:
    """Whole pixels and quarter turns are copied without a change."""
    x = lab.normal(2, 4, 4, 2)
    for numbers, expected in (
        ((1, 0, 0, 0, 1, 0), x),
        ((0, 1, 0, -1, 0, 3), np.rot90(x, 1, (1, 2))),
        ((1, 0, 0, 0, -1, 3), x[:, :, ::-1]),
        ((1, 0, -1, 0, 1, 2), np.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)))[:, :4, 2:]),
        ((1, 0, 1e9, 0, 1, 0), np.zeros_like(x)),
    ):
        transforms = np.array([numbers, numbers], np.float64)
        result = lab.run("resample", x, transforms, None, lab.blank(*x.shape))[-1]
        assert np.array_equal(result, expected), f"the transform {numbers} changes values of pixels"


@case
def positions_between_pixels(lab: Lab) -> None:
    x = np.array([0, 1, 10, 100], lab.dtype).reshape(1, 2, 2, 1)
    transforms = np.array([[1, 0, 0.25, 0, 1, 0.5]], np.float64)
    result = lab.run("resample", x, transforms, None, lab.blank(1, 2, 2, 1))[-1]
    lab.compare("resample", result[0, :, :, 0], np.array([[14.125, 12.875], [41.25, 37.5]]))


@case
def images_pass_nan_on(lab: Lab) -> None:
    x = lab.normal(2, 5, 4, 2)
    x[1, 2, 1, 0] = np.nan
    transforms = np.tile([1.0, 0.0, 0.5, 0.0, 1.0, 0.5], (2, 1))
    result = lab.run("resample", x, transforms, None, lab.blank(*x.shape))[-1]
    assert np.isnan(result[1, 1:3, 0:2, 0]).all(), "resample lost a NaN"
    assert np.isnan(result).sum() == 4, "resample spread a NaN"
