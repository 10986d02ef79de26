"""The NumPy backend's operations on images, and normalisation: windows of the image, then a product or a reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.image_geometry import Pair, every, extent, groups, image_parts, overlap, room
from nnbackend.backends.image_operations import ImageOperations
from nnbackend.backends.numpy_augmentation import NumpyAugmentation
from nnbackend.backends.numpy_tables import NumpyTables
from nnbackend.backends.numpy_training import NumpyTraining
from nnbackend.backends.products import Products

__all__ = ["NumpyImageOperations"]

Real = npt.NDArray[np.floating[Any]]


class NumpyImageOperations(NumpyAugmentation, NumpyTraining, NumpyTables, ImageOperations):
    """Plain NumPy.

    Attributes
    ----------
    products : Products
    """

    products: Products

    # ---- convolution ---------------------------------------------------------------------------------------

    def convolution(
        self,
        x: Real,
        weight: Real,
        bias: Real | None,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Real,
    ) -> None:
        size, steps, between = weight.shape[:2], (stride_y, stride_x), (dilation_y, dilation_x)
        for part in image_parts(out, weight.size // weight.shape[3]):
            windows = _windows(x[part], out.shape[1:3], size, steps, between, (top, left))
            for channels, filters in groups(x, weight):
                patches = _matrix(windows[..., channels])
                self._multiply(patches, weight[..., filters], out[part], filters)
            if bias is not None:
                out[part] += bias

    def _multiply(self, patches: Real, weight: Real, out: Real, filters: slice) -> None:
        """``out[..., filters] = patches @ weight``."""
        matrix = weight.reshape(-1, weight.shape[3])
        if weight.shape[3] == out.shape[3]:
            self.products.matmul(patches, matrix, out.reshape(-1, out.shape[3]))
        else:
            product = np.empty((len(patches), weight.shape[3]), out.dtype)
            self.products.matmul(patches, matrix, product)
            out[..., filters] = product.reshape(*out.shape[:3], -1)

    def convolution_input_gradient(
        self,
        delta: Real,
        weight: Real,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Real,
    ) -> None:
        height, width, inner = weight.shape[:3]
        before, between = (top, left), (dilation_y, dilation_x)
        for part in image_parts(delta, weight.size // weight.shape[3]):
            images, maps = out[part], delta[part]
            padded = _blank(images, maps.shape[1:3], (height, width), (stride_y, stride_x), between, before)
            for channels, filters in groups(out, weight):
                columns = np.empty((maps[..., 0].size, height * width * inner), out.dtype)
                kernel = weight[..., filters].reshape(-1, filters.stop - filters.start)
                self.products.matmul(_matrix(maps[..., filters]), kernel.T, columns)
                columns = columns.reshape(*maps.shape[:3], height, width, inner)
                for i in range(height):
                    for j in range(width):
                        rows = every(i * dilation_y, maps.shape[1], stride_y)
                        places = every(j * dilation_x, maps.shape[2], stride_x)
                        padded[:, rows, places, channels] += columns[:, :, :, i, j]
            _cut_out(padded, before, images)

    def convolution_weight_gradient(
        self,
        x: Real,
        delta: Real,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Real,
    ) -> None:
        size, steps, between = out.shape[:2], (stride_y, stride_x), (dilation_y, dilation_x)
        out[...] = 0
        for part in image_parts(delta, out.size // out.shape[3]):
            windows = _windows(x[part], delta.shape[1:3], size, steps, between, (top, left))
            for channels, filters in groups(x, out):
                patches = _matrix(windows[..., channels])
                product = np.empty((patches.shape[1], filters.stop - filters.start), out.dtype)
                self.products.matmul(patches.T, _matrix(delta[part][..., filters]), product)
                out[..., filters] += product.reshape(*out.shape[:3], -1)

    # ---- pooling -------------------------------------------------------------------------------------------

    def pool(
        self,
        x: Real,
        kind: str,
        pool_height: int,
        pool_width: int,
        stride_y: int,
        stride_x: int,
        top: int,
        left: int,
        out: Real,
    ) -> None:
        size, steps, before = (pool_height, pool_width), (stride_y, stride_x), (top, left)
        outside = -np.inf if kind == "max" else 0.0
        for part in image_parts(out, pool_height * pool_width * out.shape[3]):
            windows = _windows(x[part], out.shape[1:3], size, steps, (1, 1), before, outside)
            match kind:
                case "max":
                    windows.max(axis=(3, 4), out=out[part])
                case "average":
                    windows.sum(axis=(3, 4), out=out[part])
                    out[part] /= _counts(x, out, size, steps, before)
                case "l2":
                    np.square(windows).sum(axis=(3, 4), out=out[part])
                    np.sqrt(out[part], out=out[part])
                case _:
                    raise AssertionError(f"no such pool: {kind}")

    def pool_gradient(
        self,
        x: Real,
        pooled: Real,
        upstream: Real,
        kind: str,
        pool_height: int,
        pool_width: int,
        stride_y: int,
        stride_x: int,
        top: int,
        left: int,
        out: Real,
    ) -> None:
        size, steps, before = (pool_height, pool_width), (stride_y, stride_x), (top, left)
        outside = -np.inf if kind == "max" else 0.0
        for part in image_parts(pooled, pool_height * pool_width * out.shape[3]):
            padded = _blank(out[part], pooled.shape[1:3], size, steps, (1, 1), before)
            windows = _windows(x[part], pooled.shape[1:3], size, steps, (1, 1), before, outside)
            share = _shares(windows, pooled[part], upstream[part], kind, _counts(x, pooled, size, steps, before))
            for i in range(pool_height):
                for j in range(pool_width):
                    rows, places = every(i, pooled.shape[1], stride_y), every(j, pooled.shape[2], stride_x)
                    padded[:, rows, places] += share(i, j)
            _cut_out(padded, before, out[part])

    # ---- shapes and sums -----------------------------------------------------------------------------------

    def place(self, x: Real, top: int, left: int, out: Real) -> None:
        out[...] = 0
        (from_y, to_y), (from_x, to_x) = (
            overlap(before, inner, outer)
            for before, inner, outer in zip((top, left), x.shape[1:3], out.shape[1:3], strict=True)
        )
        out[:, to_y, to_x] = x[:, from_y, from_x]

    def add(self, a: Real, b: Real, out: Real) -> None:
        np.add(a, b, out=out)

    # ---- normalisation -------------------------------------------------------------------------------------

    def batch_norm(
        self,
        x: Real,
        scale: Real | None,
        shift: Real | None,
        momentum: float,
        epsilon: float,
        running_mean: Real,
        running_variance: Real,
        statistics: Real,
        out: Real,
    ) -> None:
        mean = x.mean(axis=0, dtype=np.float64)
        variance = np.square(x - mean).mean(axis=0)
        statistics[0] = mean
        statistics[1] = 1 / np.sqrt(variance + epsilon)
        for running, statistic in ((running_mean, mean), (running_variance, variance)):
            running *= momentum
            running += (1 - momentum) * statistic
        np.subtract(x, statistics[0], out=out)
        out *= statistics[1]
        _scale_and_shift(scale, shift, out)

    def batch_norm_gradient(
        self,
        x: Real,
        statistics: Real,
        scale: Real | None,
        upstream: Real,
        scale_gradient: Real | None,
        shift_gradient: Real | None,
        out: Real,
    ) -> None:
        mean, inverse = statistics
        y = (x - mean) * inverse
        sums = upstream.sum(axis=0, dtype=np.float64)
        products = (upstream * y).sum(axis=0, dtype=np.float64)
        if shift_gradient is not None:
            shift_gradient[...] = sums
        if scale_gradient is not None:
            scale_gradient[...] = products
        y *= (products / len(x)).astype(x.dtype)
        y += (sums / len(x)).astype(x.dtype)
        np.subtract(upstream, y, out=out)
        out *= inverse if scale is None else inverse * scale

    def normalize(
        self,
        x: Real,
        mean: Real | None,
        variance: Real,
        scale: Real | None,
        shift: Real | None,
        epsilon: float,
        out: Real,
    ) -> None:
        np.subtract(x, 0 if mean is None else mean, out=out)
        out *= 1 / np.sqrt(variance + np.float64(epsilon))
        _scale_and_shift(scale, shift, out)

    def layer_norm(
        self, x: Real, scale: Real | None, shift: Real | None, epsilon: float, statistics: Real, out: Real
    ) -> None:
        mean = x.mean(axis=1, dtype=np.float64)
        statistics[:, 0] = mean
        statistics[:, 1] = 1 / np.sqrt(np.square(x - mean[:, None]).mean(axis=1) + epsilon)
        np.subtract(x, statistics[:, :1], out=out)
        out *= statistics[:, 1:]
        _scale_and_shift(scale, shift, out)

    def layer_norm_gradient(self, x: Real, statistics: Real, scale: Real | None, upstream: Real, out: Real) -> None:
        mean, inverse = statistics[:, :1], statistics[:, 1:]
        y = (x - mean) * inverse
        g = upstream if scale is None else upstream * scale
        means = g.mean(axis=1, keepdims=True, dtype=np.float64).astype(x.dtype)
        y *= (g * y).mean(axis=1, keepdims=True, dtype=np.float64).astype(x.dtype)
        y += means
        np.subtract(g, y, out=out)
        out *= inverse

    def layer_norm_scale_gradient(self, x: Real, statistics: Real, upstream: Real, scale_gradient: Real) -> None:
        y = (x - statistics[:, :1]) * statistics[:, 1:]
        scale_gradient[...] = (upstream * y).sum(axis=0, dtype=np.float64)


def _windows(
    x: Real, positions: Any, size: Any, steps: Pair, between: Pair, before: Pair, outside: float = 0.0
) -> Real:
    """All windows of images, as a view (n, y, x, i, j, channels) of a copy with padding."""
    rows, columns = extent(positions, size, steps, between)
    if before != (0, 0) or rows > x.shape[1] or columns > x.shape[2]:
        padded = np.full((len(x), rows, columns, x.shape[3]), outside, x.dtype)
        from_y, to_y = overlap(before[0], x.shape[1], rows)
        from_x, to_x = overlap(before[1], x.shape[2], columns)
        padded[:, to_y, to_x] = x[:, from_y, from_x]
        x = padded
    n, row, column, channel = x.strides
    shape = (len(x), *positions, *size, x.shape[3])
    strides = (n, row * steps[0], column * steps[1], row * between[0], column * between[1], channel)
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


def _matrix(array: Real) -> Real:
    """The first three axes as rows, and the others as columns."""
    return np.ascontiguousarray(array).reshape(array.shape[0] * array.shape[1] * array.shape[2], -1)


def _blank(images: Real, positions: Any, size: Any, steps: Pair, between: Pair, before: Pair) -> Real:
    """Zeros for what windows add to images and their padding."""
    height, width = images.shape[1:3]
    rows, columns = room((height, width), positions, size, steps, between, before)
    return np.zeros((len(images), rows, columns, images.shape[3]), images.dtype)


def _cut_out(padded: Real, before: Pair, images: Real) -> None:
    top, left = before
    images[...] = padded[:, top : top + images.shape[1], left : left + images.shape[2]]


def _counts(x: Real, out: Real, size: Pair, steps: Pair, before: Pair) -> Real:
    """How many elements of the image each window contains: (y, x, 1)."""
    ones = np.ones((1, *x.shape[1:3], 1), x.dtype)
    counts: Real = _windows(ones, out.shape[1:3], size, steps, (1, 1), before).sum(axis=(3, 4))[0]
    return counts


def _shares(windows: Real, pooled: Real, upstream: Real, kind: str, counts: Real) -> Callable[[int, int], Real]:
    """A function that returns what element (i, j) of every window receives from `upstream`."""
    match kind:
        case "max":
            n, rows, columns, height, width, channels = windows.shape
            # argmax returns the first, and treats NaN as the largest.
            first = windows.reshape(n, rows, columns, height * width, channels).argmax(axis=3)
            return lambda i, j: np.where(first == i * width + j, upstream, 0)
        case "average":
            even = upstream / counts
            return lambda i, j: even
        case "l2":
            ratio = np.divide(upstream, pooled, out=np.zeros_like(upstream), where=pooled != 0)
            return lambda i, j: ratio * windows[:, :, :, i, j]
        case _:
            raise AssertionError(f"no such pool: {kind}")


def _scale_and_shift(scale: Real | None, shift: Real | None, out: Real) -> None:
    if scale is not None:
        out *= scale
    if shift is not None:
        out += shift
