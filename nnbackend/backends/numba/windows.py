"""Jitted functions that slide a window over images without a product. Images are (rows, height, width, channels).

`begin` and `end` are the range of rows of the batch, `size` the bytes of an element. Windows that reach over the border
of the image are cut; those of a row that do not are one call of `window_loops.py`.
"""

from __future__ import annotations

from nnbackend.backends.numba.jit import internal, internal_as_written, jit
from nnbackend.backends.numba.window_loops import (
    MOST_COLUMNS,
    convolve_channels,
    gradient_of_windows,
    pool_windows,
    sum_products,
)

__all__ = ["convolve", "place", "pool", "pool_gradient", "scatter", "weight_gradient"]


@internal
def inside(length, windows, extent, stride, dilation, before):
    """The range of the windows of an axis that lie within the image. `before` is the padding, or negative."""
    low = min(max((before + stride - 1) // stride, 0), windows)
    high = (length + before - (extent - 1) * dilation - 1) // stride + 1
    return low, max(low, min(high, windows))


@internal
def cut(start, length, extent, dilation):
    """The range of the elements of a window that lie within the image, if its first one is at `start`."""
    low = (dilation - 1 - start) // dilation if start < 0 else 0
    high = min(extent, (length - 1 - start) // dilation + 1)
    return low, max(low, high)


@internal_as_written
def pool(tile_shape, size, line, begin, end):
    channels = line.channels
    x_row, step = line.width * channels, line.stride_x * channels
    low, high = inside(line.width, line.out_width, line.pool_width, line.stride_x, 1, line.left)
    for n in range(begin, end):
        for row in range(line.out_height):
            y = row * line.stride_y - line.top
            first, last = cut(y, line.height, line.pool_height, 1)
            image = line.x + (n * line.height + y + first) * x_row * size
            out = line.out + (n * line.out_height + row) * line.out_width * channels * size
            column = 0
            while column < line.out_width:
                count = max(1, high - low) if column == low else 1
                z = column * line.stride_x - line.left
                left, right = cut(z, line.width, line.pool_width, 1)
                pool_windows(
                    tile_shape, line.kind, last - first, right - left, image + (z + left) * channels * size, step,
                    x_row, channels, out + column * channels * size, count,
                )  # fmt: skip
                column += count


@internal_as_written
def pool_gradient(tile_shape, size, line, begin, end):
    """Adds to the gradient, which holds zeros."""
    channels = line.channels
    x_row, step = line.width * channels, line.stride_x * channels
    low, high = inside(line.width, line.out_width, line.pool_width, line.stride_x, 1, line.left)
    for n in range(begin, end):
        for row in range(line.out_height):
            y = row * line.stride_y - line.top
            first, last = cut(y, line.height, line.pool_height, 1)
            image = (n * line.height + y + first) * x_row
            pooled = (n * line.out_height + row) * line.out_width * channels
            column = 0
            while column < line.out_width:
                count = max(1, high - low) if column == low else 1
                z = column * line.stride_x - line.left
                left, right = cut(z, line.width, line.pool_width, 1)
                corner, place = (image + (z + left) * channels) * size, (pooled + column * channels) * size
                gradient_of_windows(
                    tile_shape, line.kind, last - first, right - left, line.x + corner, step, x_row, channels,
                    line.pooled + place, line.upstream + place, line.out + corner, count,
                )  # fmt: skip
                column += count


@internal_as_written
def convolve(
    tile_shape, size, image, height, width, line, stride_y, stride_x, top, left, weight, weight_step, bias, out,
    out_height, out_width, begin, end,
):  # fmt: skip
    """A convolution whose filters see one channel each. The kernel, which may be read backwards, begins at `weight`."""
    channels = line.channels
    rows, columns = line.kernel_height, line.kernel_width
    low, high = inside(width, out_width, columns, stride_x, line.dilation_x, left)
    for n in range(begin, end):
        for row in range(out_height):
            y = row * stride_y - top
            i, last = cut(y, height, rows, line.dilation_y)
            image_row = (n * height + y + i * line.dilation_y) * width
            column = 0
            while column < out_width:
                count = max(1, high - low) if column == low else 1
                z = column * stride_x - left
                j, right = cut(z, width, columns, line.dilation_x)
                convolve_channels(
                    tile_shape, last - i, right - j, image + (image_row + z + j * line.dilation_x) * channels * size,
                    stride_x * channels, line.dilation_y * width * channels, line.dilation_x * channels,
                    weight + (i * columns + j) * weight_step * size, columns * weight_step, weight_step, bias,
                    channels, out + ((n * out_height + row) * out_width + column) * channels * size, count,
                )  # fmt: skip
                column += count


@internal_as_written
def weight_gradient(tile_shape, size, line, i, begin, end):
    """Adds to row `i` of the gradient of a depthwise kernel, which holds zeros, for channels `begin` to `end`."""
    channels, columns = line.channels, line.kernel_width
    step, x_column = line.stride_x * channels, line.dilation_x * channels
    for n in range(line.rows):
        for row in range(line.out_height):
            y = row * line.stride_y + i * line.dilation_y - line.top
            if y < 0 or y >= line.height:
                continue
            delta = line.delta + (n * line.out_height + row) * line.out_width * channels * size
            for first in range(0, columns, MOST_COLUMNS):
                together = min(MOST_COLUMNS, columns - first)
                before = line.left - first * line.dilation_x
                image = line.x + ((n * line.height + y) * line.width - before) * channels * size
                out = line.out + (i * columns + first) * channels * size
                low, high = inside(line.width, line.out_width, together, line.stride_x, line.dilation_x, before)
                sum_products(
                    tile_shape, together, image + low * step * size, step, x_column, delta + low * channels * size,
                    channels, begin, end, out, channels, high - low,
                )  # fmt: skip
                for j in range(together):
                    # The windows in which column j lies within the image, but not all columns.
                    a, b = inside(line.width, line.out_width, 1, line.stride_x, 1, before - j * line.dilation_x)
                    for p, q in ((a, min(low, b)), (max(high, a), b)):
                        sum_products(
                            tile_shape, 1, image + (p * step + j * x_column) * size, step, x_column,
                            delta + p * channels * size, channels, begin, end, out + j * channels * size, channels,
                            max(0, q - p),
                        )  # fmt: skip


@internal_as_written
def scatter(line, delta, weight, out, begin, end):
    """The input gradient of a depthwise convolution with strides; adds to `out`, which holds zeros."""
    channels = line.channels
    for n in range(begin, end):
        for row in range(line.out_height):
            for column in range(line.out_width):
                place = ((n * line.out_height + row) * line.out_width + column) * channels
                upstream = delta[place : place + channels]
                for i in range(line.kernel_height):
                    y = row * line.stride_y + i * line.dilation_y - line.top
                    if 0 <= y < line.height:
                        for j in range(line.kernel_width):
                            z = column * line.stride_x + j * line.dilation_x - line.left
                            if 0 <= z < line.width:
                                target = ((n * line.height + y) * line.width + z) * channels
                                image = out[target : target + channels]
                                element = (i * line.kernel_width + j) * channels
                                kernel = weight[element : element + channels]
                                for c in range(channels):
                                    image[c] += upstream[c] * kernel[c]


@jit
def place(x, height, width, channels, top, left, out_height, out_width, out, begin, end):
    zero = x.dtype.type(0)
    for n in range(begin, end):
        for row in range(out_height):
            i = row - top
            for column in range(out_width):
                j = column - left
                target = ((n * out_height + row) * out_width + column) * channels
                if 0 <= i < height and 0 <= j < width:
                    source = ((n * height + i) * width + j) * channels
                    for c in range(channels):
                        out[target + c] = x[source + c]
                else:
                    for c in range(channels):
                        out[target + c] = zero
