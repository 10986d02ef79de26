"""Convolutions and pools in terms of the array API standard: windows as slices, then a product or a reduction."""

from __future__ import annotations

import math
from collections.abc import Callable

from nnbackend.backends.array_api.namespace import Namespace
from nnbackend.backends.arrays import Array
from nnbackend.backends.image_geometry import Pair, every, extent, groups, image_parts, overlap, room

__all__ = ["ImageWindows"]


class ImageWindows(Namespace):
    """Each operation is its formula in :mod:`nnbackend.backends.image_operations`."""

    # ---- convolution -----------------------------------------------------------------------------------------

    def convolution(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        xp, (height, width, inner, _) = self.xp, weight.shape
        steps, between = (stride_y, stride_x), (dilation_y, dilation_x)
        for part in image_parts(out, height * width * inner):
            element = self._windows(x[part, ...], out.shape[1:3], (height, width), steps, between, (top, left))
            maps = out[part, ...]
            for channels, filters in groups(x, weight):
                every_element = [element(i, j)[..., channels] for i in range(height) for j in range(width)]
                patches = xp.reshape(xp.concat(every_element, axis=3), (-1, height * width * inner))
                product = patches @ xp.reshape(weight[..., filters], (patches.shape[1], -1))
                maps[..., filters] = xp.reshape(product, (*maps.shape[:3], -1))
            if bias is not None:
                maps += bias

    def convolution_input_gradient(
        self,
        delta: Array,
        weight: Array,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        xp, (height, width, inner, _) = self.xp, weight.shape
        steps, between = (stride_y, stride_x), (dilation_y, dilation_x)
        for part in image_parts(delta, height * width * inner):
            maps = delta[part, ...]
            padded = self._blank(out[part, ...], maps.shape[1:3], (height, width), steps, between, (top, left))
            for channels, filters in groups(out, weight):
                matrix = xp.reshape(maps[..., filters], (-1, filters.stop - filters.start))
                for i in range(height):
                    for j in range(width):
                        product = matrix @ xp.matrix_transpose(weight[i, j, :, filters])
                        rows = every(i * dilation_y, maps.shape[1], stride_y)
                        places = every(j * dilation_x, maps.shape[2], stride_x)
                        padded[:, rows, places, channels] += xp.reshape(product, (*maps.shape[:3], inner))
            _cut_out(padded, (top, left), out[part, ...])

    def convolution_weight_gradient(
        self,
        x: Array,
        delta: Array,
        stride_y: int,
        stride_x: int,
        dilation_y: int,
        dilation_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        xp, (height, width, inner, _) = self.xp, out.shape
        steps, between = (stride_y, stride_x), (dilation_y, dilation_x)
        out[...] = xp.zeros_like(out)
        for part in image_parts(delta, height * width * inner):
            maps = delta[part, ...]
            element = self._windows(x[part, ...], delta.shape[1:3], (height, width), steps, between, (top, left))
            for channels, filters in groups(x, out):
                matrix = xp.reshape(maps[..., filters], (-1, filters.stop - filters.start))
                for i in range(height):
                    for j in range(width):
                        patches = xp.reshape(element(i, j)[..., channels], (-1, inner))
                        out[i, j, :, filters] += xp.matrix_transpose(patches) @ matrix

    # ---- pooling ---------------------------------------------------------------------------------------------

    def pool(
        self,
        x: Array,
        kind: str,
        pool_height: int,
        pool_width: int,
        stride_y: int,
        stride_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        size, steps, before = (pool_height, pool_width), (stride_y, stride_x), (top, left)
        outside = -math.inf if kind == "max" else 0.0
        element = self._windows(x, out.shape[1:3], size, steps, (1, 1), before, outside)
        others = [(i, j) for i in range(pool_height) for j in range(pool_width)][1:]
        match kind:
            case "max":
                largest = element(0, 0)
                for i, j in others:
                    largest = self.xp.where(self._exceeds(element(i, j), largest), element(i, j), largest)
                out[...] = largest
            case "average":
                out[...] = element(0, 0)
                for i, j in others:
                    out += element(i, j)
                out /= self._counts(x, out, size, steps, before)
            case "l2":
                out[...] = element(0, 0) * element(0, 0)
                for i, j in others:
                    out += element(i, j) * element(i, j)
                out[...] = self.xp.sqrt(out)
            case _:
                raise AssertionError(f"no such pool: {kind}")

    def _exceeds(self, value: Array, largest: Array) -> Array:
        """Where a later element of a window takes the place of the largest so far: where it is larger, or is NaN."""
        isnan = self.xp.isnan
        return (value > largest) | (isnan(value) & ~isnan(largest))

    def pool_gradient(
        self,
        x: Array,
        pooled: Array,
        upstream: Array,
        kind: str,
        pool_height: int,
        pool_width: int,
        stride_y: int,
        stride_x: int,
        top: int,
        left: int,
        out: Array,
    ) -> None:
        size, steps, before = (pool_height, pool_width), (stride_y, stride_x), (top, left)
        padded = self._blank(out, pooled.shape[1:3], size, steps, (1, 1), before)
        outside = -math.inf if kind == "max" else 0.0
        element = self._windows(x, pooled.shape[1:3], size, steps, (1, 1), before, outside)
        match kind:
            case "max":
                share = self._to_the_first(element, size, upstream)
            case "average":
                even = upstream / self._counts(x, pooled, size, steps, before)
                share = lambda i, j: even  # noqa: E731, as the others
            case _:
                one = self.xp.ones_like(pooled)
                ratio = self.xp.where(pooled == 0, 0 * one, upstream / self.xp.where(pooled == 0, one, pooled))
                share = lambda i, j: ratio * element(i, j)  # noqa: E731
        for i in range(pool_height):
            for j in range(pool_width):
                rows, places = every(i, pooled.shape[1], stride_y), every(j, pooled.shape[2], stride_x)
                padded[:, rows, places, :] += share(i, j)
        _cut_out(padded, before, out)

    def _to_the_first(
        self, element: Callable[[int, int], Array], size: Pair, upstream: Array
    ) -> Callable[[int, int], Array]:
        """A function that returns `upstream` where element (i, j) is the first largest of its window, else 0."""
        xp, largest = self.xp, element(0, 0)
        first = xp.zeros(upstream.shape, dtype=xp.int32, device=self.library.device)
        for i in range(size[0]):
            for j in range(size[1]):
                exceeds = self._exceeds(element(i, j), largest)
                largest = xp.where(exceeds, element(i, j), largest)
                first = xp.where(exceeds, xp.full_like(first, i * size[1] + j), first)
        return lambda i, j: xp.where(first == i * size[1] + j, upstream, xp.zeros_like(upstream))

    # ---- shapes and sums -------------------------------------------------------------------------------------

    def place(self, x: Array, top: int, left: int, out: Array) -> None:
        out[...] = self.xp.zeros_like(out)
        (from_y, to_y), (from_x, to_x) = (
            overlap(before, inner, outer)
            for before, inner, outer in zip((top, left), x.shape[1:3], out.shape[1:3], strict=True)
        )
        out[:, to_y, to_x, :] = x[:, from_y, from_x, :]

    def add(self, a: Array, b: Array, out: Array) -> None:
        out[...] = a + b

    # ---- windows ---------------------------------------------------------------------------------------------

    def _padded(
        self, x: Array, positions: Pair, size: Pair, steps: Pair, between: Pair, before: Pair, outside: float
    ) -> Array:
        """Images with the padding that the windows need; the images themselves if they need none."""
        rows, columns = extent(positions, size, steps, between)
        if before == (0, 0) and rows <= x.shape[1] and columns <= x.shape[2]:
            return x
        shape = (x.shape[0], rows, columns, x.shape[3])
        padded = self.xp.full(shape, outside, dtype=x.dtype, device=self.library.device)
        from_y, to_y = overlap(before[0], x.shape[1], rows)
        from_x, to_x = overlap(before[1], x.shape[2], columns)
        padded[:, to_y, to_x, :] = x[:, from_y, from_x, :]
        return padded

    def _windows(
        self,
        x: Array,
        positions: tuple[int, ...],
        size: Pair,
        steps: Pair,
        between: Pair,
        before: Pair,
        outside: float = 0.0,
    ) -> Callable[[int, int], Array]:
        """A function that returns element (i, j) of all windows, as a view (n, y, x, channels)."""
        height, width = positions
        padded = self._padded(x, (height, width), size, steps, between, before, outside)

        def element(i: int, j: int) -> Array:
            rows, places = every(i * between[0], height, steps[0]), every(j * between[1], width, steps[1])
            return padded[:, rows, places, :]

        return element

    def _blank(
        self, images: Array, positions: tuple[int, ...], size: Pair, steps: Pair, between: Pair, before: Pair
    ) -> Array:
        """Zeros for what windows add to images and their padding."""
        (n, height, width, channels), (y, x) = images.shape, positions
        rows, columns = room((height, width), (y, x), size, steps, between, before)
        return self._zeros((n, rows, columns, channels), images)

    def _counts(self, x: Array, out: Array, size: Pair, steps: Pair, before: Pair) -> Array:
        """How many elements of the image each window contains: (1, y, x, 1)."""
        ones = self.xp.ones((1, *x.shape[1:3], 1), dtype=x.dtype, device=self.library.device)
        element = self._windows(ones, out.shape[1:3], size, steps, (1, 1), before)
        places = [(i, j) for i in range(size[0]) for j in range(size[1])]
        total = 0 * element(0, 0)
        for i, j in places:
            total = total + element(i, j)
        return total


def _cut_out(padded: Array, before: Pair, images: Array) -> None:
    (top, left), (height, width) = before, images.shape[1:3]
    images[...] = padded[:, top : top + height, left : left + width, :]
