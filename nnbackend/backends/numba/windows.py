"""Jitted kernels that slide a window over images without a product. Arrays are flat: (rows, height, width, channels).

`begin` and `end` are the range of rows of the batch. The inner loops run over channels, which are contiguous.
"""

from __future__ import annotations

import math

from nnbackend.backends.image_operations import POOLS
from nnbackend.backends.numba.jit import as_written, internal_as_written, jit

__all__ = [
    "depthwise", "depthwise_input_gradient", "depthwise_weight_gradient", "place", "pool", "pool_gradient",
]  # fmt: skip

_MAX, _AVERAGE = POOLS.index("max"), POOLS.index("average")


@as_written
def pool(
    x, kind, height, width, channels, out_height, out_width, pool_height, pool_width, stride_y, stride_x, top, left,
    out, begin, end,
):  # fmt: skip
    zero = x.dtype.type(0)
    for n in range(begin, end):
        for row in range(out_height):
            low, high = max(row * stride_y - top, 0), min(row * stride_y - top + pool_height, height)
            for column in range(out_width):
                first = max(column * stride_x - left, 0)
                last = min(column * stride_x - left + pool_width, width)
                target = ((n * out_height + row) * out_width + column) * channels
                result = out[target : target + channels]
                if kind != _MAX:
                    result[:] = zero
                for i in range(low, high):
                    for j in range(first, last):
                        source = ((n * height + i) * width + j) * channels
                        window = x[source : source + channels]
                        if kind == _MAX and i == low and j == first:
                            result[:] = window
                        elif kind == _MAX:
                            for c in range(channels):
                                # A NaN is kept, and replaces what is not one.
                                better = window[c] > result[c] or window[c] != window[c]
                                result[c] = window[c] if better else result[c]
                        elif kind == _AVERAGE:
                            for c in range(channels):
                                result[c] += window[c]
                        else:
                            for c in range(channels):
                                result[c] += window[c] * window[c]
                if kind == _AVERAGE:
                    count = x.dtype.type((high - low) * (last - first))
                    for c in range(channels):
                        result[c] /= count
                elif kind != _MAX:
                    for c in range(channels):
                        result[c] = math.sqrt(result[c])


@as_written
def pool_gradient(
    x, pooled, upstream, kind, height, width, channels, out_height, out_width, pool_height, pool_width, stride_y,
    stride_x, top, left, out, remaining, begin, end,
):  # fmt: skip
    """Adds to `out`, which holds zeros; `remaining` is memory for `channels` numbers."""
    zero = x.dtype.type(0)
    for n in range(begin, end):
        for row in range(out_height):
            low, high = max(row * stride_y - top, 0), min(row * stride_y - top + pool_height, height)
            for column in range(out_width):
                first = max(column * stride_x - left, 0)
                last = min(column * stride_x - left + pool_width, width)
                place = ((n * out_height + row) * out_width + column) * channels
                result, gradient = pooled[place : place + channels], upstream[place : place + channels]
                count = x.dtype.type((high - low) * (last - first))
                if kind == _MAX:
                    remaining[:] = gradient
                for i in range(low, high):
                    for j in range(first, last):
                        source = ((n * height + i) * width + j) * channels
                        window, target = x[source : source + channels], out[source : source + channels]
                        if kind == _MAX:
                            for c in range(channels):
                                # The first that is equal, or NaN, receives all.
                                found = window[c] == result[c] or window[c] != window[c]
                                target[c] += remaining[c] if found else zero
                                remaining[c] = zero if found else remaining[c]
                        elif kind == _AVERAGE:
                            for c in range(channels):
                                target[c] += gradient[c] / count
                        else:
                            for c in range(channels):
                                if result[c] != zero:
                                    target[c] += gradient[c] / result[c] * window[c]


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


@internal_as_written
def depthwise(line, x, weight, bias, out, begin, end):
    """A convolution whose filters see one channel each. `line` is its record."""
    channels = line.channels
    zero = x.dtype.type(0)
    for n in range(begin, end):
        for row in range(line.out_height):
            for column in range(line.out_width):
                place = ((n * line.out_height + row) * line.out_width + column) * channels
                result = out[place : place + channels]
                for c in range(channels):
                    result[c] = bias[c] if bias.size else zero
                for i in range(line.kernel_height):
                    y = row * line.stride_y + i * line.dilation_y - line.top
                    if 0 <= y < line.height:
                        for j in range(line.kernel_width):
                            z = column * line.stride_x + j * line.dilation_x - line.left
                            if 0 <= z < line.width:
                                source = ((n * line.height + y) * line.width + z) * channels
                                image = x[source : source + channels]
                                element = (i * line.kernel_width + j) * channels
                                kernel = weight[element : element + channels]
                                for c in range(channels):
                                    result[c] += image[c] * kernel[c]


@internal_as_written
def depthwise_input_gradient(line, delta, weight, out, begin, end):
    """Adds to `out`, which holds zeros."""
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


@internal_as_written
def depthwise_weight_gradient(line, x, delta, out, begin, end):
    """Adds to `out`, which holds zeros, for elements `begin` to `end` of the window."""
    channels = line.channels
    for n in range(line.rows):
        for row in range(line.out_height):
            for column in range(line.out_width):
                place = ((n * line.out_height + row) * line.out_width + column) * channels
                upstream = delta[place : place + channels]
                for element in range(begin, end):
                    i, j = divmod(element, line.kernel_width)
                    y = row * line.stride_y + i * line.dilation_y - line.top
                    z = column * line.stride_x + j * line.dilation_x - line.left
                    if 0 <= y < line.height and 0 <= z < line.width:
                        source = ((n * line.height + y) * line.width + z) * channels
                        image = x[source : source + channels]
                        gradient = out[element * channels : (element + 1) * channels]
                        for c in range(channels):
                            gradient[c] += image[c] * upstream[c]
