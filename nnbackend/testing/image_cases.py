"""Cases of the acceptance suite for images: convolutions, pools, images placed in others, and sums."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.backends.image_operations import POOLS
from nnbackend.testing.lab import Lab, case

__all__: list[str] = []

#: Two numbers: of rows and of columns.
_Pair = tuple[int, int]


class _Geometry(NamedTuple):
    """Images, and a window that slides over them."""

    image: _Pair
    window: _Pair
    strides: _Pair = (1, 1)
    dilation: _Pair = (1, 1)
    #: Top, bottom, left, right.
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def maps(self) -> _Pair:
        """Height and width of the result."""
        top, bottom, left, right = self.padding
        covered = [(size - 1) * step + 1 for size, step in zip(self.window, self.dilation, strict=True)]
        padded = self.image[0] + top + bottom, self.image[1] + left + right
        return (
            (padded[0] - covered[0]) // self.strides[0] + 1,
            (padded[1] - covered[1]) // self.strides[1] + 1,
        )

    @property
    def steps(self) -> tuple[int, ...]:
        """The constants of a convolution."""
        return *self.strides, *self.dilation, self.padding[0], self.padding[2]


#: One element; the whole image; one row; odd sizes, strides that leave rows out and overlap, dilation, padding that
#: differs on all sides, windows that lie in the padding entirely, strides longer than the window.
_CONVOLUTIONS = (
    _Geometry((1, 1), (1, 1)),
    _Geometry((5, 7), (5, 7)),
    _Geometry((1, 9), (1, 3), padding=(0, 0, 1, 1)),
    _Geometry((7, 5), (3, 3), padding=(1, 1, 1, 1)),
    _Geometry((8, 7), (3, 2), strides=(2, 3), padding=(0, 1, 2, 0)),
    _Geometry((9, 8), (2, 3), dilation=(3, 2), padding=(2, 0, 1, 3)),
    _Geometry((7, 9), (3, 3), strides=(2, 1), dilation=(1, 2), padding=(1, 0, 0, 2)),
    _Geometry((4, 3), (2, 2), padding=(3, 2, 2, 3)),
    _Geometry((7, 8), (2, 1), strides=(3, 3)),
)

#: The same for pools, whose windows always contain a part of the image.
_POOLS = (
    _Geometry((1, 1), (1, 1)),
    _Geometry((4, 6), (2, 2), (2, 2)),
    _Geometry((5, 7), (2, 3), (2, 3)),
    _Geometry((5, 7), (5, 7)),
    _Geometry((7, 6), (3, 2), (2, 1), padding=(1, 1, 0, 1)),
    _Geometry((6, 7), (3, 4), (1, 2), padding=(2, 0, 1, 3)),
    _Geometry((8, 7), (2, 2), (3, 3)),
)

#: Groups, channels of a group, filters of a group: one channel; dense; one filter; two groups; depthwise, also with a
#: multiplier; wide groups.
_CHANNELS = ((1, 1, 1), (1, 3, 5), (1, 3, 1), (2, 2, 3), (5, 1, 1), (3, 1, 2), (2, 10, 9))


# ---- convolution ---------------------------------------------------------------------------------------------


def _images(lab: Lab) -> int:
    return min(lab.shape.rows, 3)


def _convolve(lab: Lab, geometry: _Geometry, groups: int, channels: int, filters: int) -> None:
    n, kernel = _images(lab), (*geometry.window, channels, groups * filters)
    image, maps = (n, *geometry.image, groups * channels), (n, *geometry.maps, groups * filters)
    x, delta = lab.normal(*image), lab.normal(*maps)
    weight = lab.normal(*kernel, scale=(kernel[0] * kernel[1] * channels) ** -0.5)
    for bias in (lab.normal(kernel[3]), None):
        lab.run("convolution", x, weight, bias, *geometry.steps, lab.blank(*maps))
    lab.run("convolution_input_gradient", delta, weight, *geometry.steps, lab.blank(*image))
    lab.run("convolution_weight_gradient", x, delta, *geometry.steps, lab.blank(*kernel))


@case
def convolutions_of_every_geometry(lab: Lab) -> None:
    channels, filters = min(lab.shape.inputs, 3), min(lab.shape.outputs, 4)
    for geometry in _CONVOLUTIONS:
        _convolve(lab, geometry, 1, channels, filters)


@case
def convolutions_in_groups(lab: Lab) -> None:
    for geometry in (_CONVOLUTIONS[3], _CONVOLUTIONS[6]):
        for groups, channels, filters in _CHANNELS:
            _convolve(lab, geometry, groups, channels, filters)


@case
def convolutions_of_many_channels(lab: Lab) -> None:
    channels, filters = min(lab.shape.inputs, 70), min(lab.shape.outputs, 70)
    _convolve(lab, _Geometry((5, 4), (3, 3), padding=(1, 1, 1, 1)), 1, channels, filters)
    _convolve(lab, _Geometry((3, 5), (1, 1)), 1, channels, filters)


@case
def convolutions_of_many_positions(lab: Lab) -> None:
    """More than one part of a sum over positions."""
    _convolve(lab, _Geometry((23, 21), (3, 2), padding=(1, 1, 1, 0)), 1, 2, 10)
    _convolve(lab, _Geometry((23, 21), (2, 3), padding=(1, 0, 1, 1)), 2, 1, 1)


@case
def a_convolution_computed_by_hand(lab: Lab) -> None:
    """The kernel is not flipped, and the first row of padding is above."""
    x = np.arange(1, 7, dtype=lab.dtype).reshape(1, 2, 3, 1)
    weight = np.array([[1, 10], [100, 1000]], lab.dtype).reshape(2, 2, 1, 1)
    result = lab.run("convolution", x, weight, None, 1, 1, 1, 1, 1, 0, lab.blank(1, 2, 2, 1))[-1]
    lab.compare("convolution", result[0, :, :, 0], np.array([[2100, 3200], [5421, 6532]], np.float64))


@case
def convolutions_pass_nan_on(lab: Lab) -> None:
    geometry = _Geometry((5, 4), (2, 2))
    image, maps, kernel = (2, 5, 4, 2), (2, *geometry.maps, 3), (2, 2, 2, 3)
    x, delta, weight = lab.normal(*image), lab.normal(*maps), lab.normal(*kernel)
    x[1, 2, 1, 0] = np.nan
    out = lab.run("convolution", x, weight, None, *geometry.steps, lab.blank(*maps))[-1]
    assert np.isnan(out[1, 1:3, 0:2]).all(), "convolution lost a NaN in its input"
    out = lab.run("convolution_weight_gradient", x, delta, *geometry.steps, lab.blank(*kernel))[-1]
    assert np.isnan(out[:, :, 0]).all(), "convolution_weight_gradient lost a NaN"
    delta[0, 1, 2, 1] = np.nan
    out = lab.run("convolution_input_gradient", delta, weight, *geometry.steps, lab.blank(*image))[-1]
    assert np.isnan(out[0, 1:3, 2:4]).all(), "convolution_input_gradient lost a NaN"


@case
def convolutions_are_repeated_bit_for_bit(lab: Lab) -> None:
    x, delta = lab.normal(3, 11, 9, 4), lab.normal(3, 9, 7, 12)
    weight, scale = lab.normal(3, 3, 4, 12), lab.normal(12)

    def once() -> list[bytes]:
        backend, put = lab.backend, lab.device
        sizes = (3, 9, 7, 12), (3, 11, 9, 4), (3, 3, 4, 12), (12,)
        out, image, kernel, bias = (backend.empty(size, lab.dtype) for size in sizes)
        steps = (1, 1, 1, 1, 0, 0)
        backend.convolution(put(x), put(weight), put(scale), *steps, out)
        backend.convolution_input_gradient(put(delta), put(weight), *steps, image)
        backend.convolution_weight_gradient(put(x), put(delta), *steps, kernel)
        backend.bias_gradient(backend.reshape(out, (3 * 9 * 7, 12)), bias)
        return [backend.to_host(array).tobytes() for array in (out, image, kernel, bias)]

    assert once() == once(), "repeating the same calls with the same numbers gave different bits"


# ---- pooling -------------------------------------------------------------------------------------------------


def _pool(lab: Lab, kind: str, geometry: _Geometry, x: HostArray) -> tuple[HostArray, HostArray]:
    """The result of a pool and its gradient."""
    maps = (len(x), *geometry.maps, x.shape[3])
    window = (kind, *geometry.window, *geometry.strides, geometry.padding[0], geometry.padding[2])
    pooled = lab.run("pool", x, *window, lab.blank(*maps))[-1]
    upstream = lab.normal(*maps)
    return pooled, lab.run("pool_gradient", x, pooled, upstream, *window, lab.blank(*x.shape))[-1]


@case
def pools_of_every_geometry(lab: Lab) -> None:
    channels = min(lab.shape.inputs, 5)
    for geometry in _POOLS:
        for kind in POOLS:
            _pool(lab, kind, geometry, lab.normal(_images(lab), *geometry.image, channels))


@case
def pools_of_many_channels(lab: Lab) -> None:
    for kind in POOLS:
        _pool(lab, kind, _POOLS[4], lab.normal(1, *_POOLS[4].image, min(lab.shape.outputs, 70)))


@case
def the_first_of_equals_gets_the_gradient_of_a_max_pool(lab: Lab) -> None:
    for geometry in _POOLS:
        # Small integers have many ties, and negative ones are smaller than padding.
        shape = (_images(lab), *geometry.image, 2)
        _pool(lab, "max", geometry, np.trunc(lab.normal(*shape)))
        _pool(lab, "max", geometry, np.full(shape, -3, lab.dtype))
    ones = np.ones((1, 4, 4, 1), lab.dtype)
    result = lab.run("pool_gradient", ones, ones[:, ::2, ::2].copy(), 2 * ones[:, ::2, ::2], "max", 2, 2, 2, 2, 0, 0,
                     lab.blank(1, 4, 4, 1))[-1]  # fmt: skip
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 2
    lab.compare("the gradient of equal elements", result[0, :, :, 0], expected)
    upstream = np.array([np.nan, np.inf], lab.dtype).reshape(1, 1, 2, 1)
    result = lab.run("pool_gradient", ones[:, :2], ones[:, :1, ::2].copy(), upstream, "max", 2, 2, 2, 2, 0, 0,
                     lab.blank(1, 2, 4, 1))[-1]  # fmt: skip
    assert (result[0, :, 1::2, 0] == 0).all(), "a gradient that is not finite goes to more than one element"


@case
def pools_pass_nan_on(lab: Lab) -> None:
    for kind in POOLS:
        for first in (True, False):
            x = lab.normal(2, 5, 6, 2)
            x[1, 2 + first, 1 + first, 0] = x[1, 3, 3, 0] = np.nan
            pooled, _ = _pool(lab, kind, _Geometry((5, 6), (2, 2), (1, 2), padding=(1, 0, 0, 0)), x)
            assert np.isnan(pooled[1, 3, 0:2, 0]).any(), f"the {kind} pool lost a NaN"


@case
def the_gradient_of_an_l2_pool_of_zeros_is_zero(lab: Lab) -> None:
    x = lab.normal(1, 4, 4, 2)
    x[0, :2, :2] = 0
    x[0, 2, 2, 0] = 0
    pooled, gradient = _pool(lab, "l2", _Geometry((4, 4), (2, 2), (2, 2)), x)
    assert (pooled[0, 0, 0] == 0).all(), "the L2 pool of zeros is not 0"
    assert (gradient[0, :2, :2] == 0).all(), "the gradient of an L2 pool of zeros is not 0"


# ---- shapes and sums -----------------------------------------------------------------------------------------


@case
def images_are_placed_in_others(lab: Lab) -> None:
    n, channels = _images(lab), min(lab.shape.inputs, 5)
    for (height, width), (top, left), (out_height, out_width) in (
        ((3, 4), (0, 0), (3, 4)),
        ((3, 4), (1, 2), (5, 9)),
        ((5, 7), (-1, -3), (3, 2)),
        ((5, 3), (-2, 1), (6, 3)),
        ((1, 1), (2, 2), (3, 3)),
        ((2, 2), (-2, 0), (2, 2)),
        ((2, 2), (0, 5), (3, 4)),
    ):
        out = lab.blank(n, out_height, out_width, channels)
        lab.run("place", lab.normal(n, height, width, channels), top, left, out)


@case
def sums(lab: Lab) -> None:
    n, q = lab.shape.rows, lab.shape.outputs
    a, b = lab.normal(n, q), lab.normal(n, q)
    lab.run("add", a, b, lab.blank(n, q))
    lab.run("add", a.copy(), b, a)
    lab.run("add", a, b, a)
    lab.run("add", a, b, b)
    lab.run("add", a, a, lab.blank(n, q))
