"""Compiled functions of operations on images that are no products: pools, depthwise convolutions, placing, adding, and
random transformations. See `kinds.py`."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba import resampling, windows
from nnbackend.backends.numba.convolution_tiles import image_of, kernel_of, maps_of
from nnbackend.backends.numba.kinds import SCRATCH, STATE, compiled, share
from nnbackend.backends.numba.memory import counts, matrix, vector
from nnbackend.backends.numba.records import at

# ---- depthwise convolution -------------------------------------------------------------------------------------------


def is_depthwise(call):
    """Whether each filter sees one channel, the one with its number."""
    kernel, image = kernel_of(call), image_of(call)
    return kernel.shape[2] == 1 and kernel.shape[3] == image.shape[3] > 1


def _depthwise_work(call):
    kernel, maps = kernel_of(call), maps_of(call)
    return 8 * kernel.shape[0] * kernel.shape[1] * maps.size


@compiled("convolution", accepts=is_depthwise, work=_depthwise_work)
def depthwise_convolution(tile_shape, real, record):
    size = tile_shape.size

    def depthwise_convolution(address, state, scratch):
        line = at(record, address)
        begin, end = share(line.rows, state)
        windows.convolve(
            tile_shape, size, line.x, line.height, line.width, line, line.stride_y, line.stride_x, line.top, line.left,
            line.weight, line.channels, line.bias, line.out, line.out_height, line.out_width, begin, end,
        )  # fmt: skip

    return depthwise_convolution


@compiled("convolution_input_gradient", accepts=is_depthwise, work=_depthwise_work)
def depthwise_input_gradient(tile_shape, real, record):
    """Without strides this is a convolution of `delta` with the kernel read backwards."""
    size = tile_shape.size

    def depthwise_input_gradient(address, state, scratch):
        line = at(record, address)
        begin, end = share(line.rows, state)
        elements = line.kernel_height * line.kernel_width
        if line.stride_y == 1 and line.stride_x == 1:
            top = (line.kernel_height - 1) * line.dilation_y - line.top
            left = (line.kernel_width - 1) * line.dilation_x - line.left
            windows.convolve(
                tile_shape, size, line.delta, line.out_height, line.out_width, line, 1, 1, top, left,
                line.weight + (elements - 1) * line.channels * size, -line.channels, 0, line.out, line.height,
                line.width, begin, end,
            )  # fmt: skip
            return
        image = line.height * line.width * line.channels
        delta = vector(line.delta, line.rows * line.out_height * line.out_width * line.channels, real)
        weight = vector(line.weight, elements * line.channels, real)
        out = vector(line.out, line.rows * image, real)
        out[begin * image : end * image] = real(0)
        windows.scatter(line, delta, weight, out, begin, end)

    return depthwise_input_gradient


@compiled("convolution_weight_gradient", accepts=is_depthwise, work=_depthwise_work)
def depthwise_weight_gradient(tile_shape, real, record):
    """Threads share the rows of a window and the channels, a few vectors at a time."""
    size, lanes = tile_shape.size, tile_shape.lanes

    def depthwise_weight_gradient(address, state, scratch):
        line = at(record, address)
        out = vector(line.out, line.kernel_height * line.kernel_width * line.channels, real)
        parts = (line.channels + lanes - 1) // lanes
        first, last = share(line.kernel_height * parts, state)
        while first < last:
            i, part = divmod(first, parts)
            # As many channels of this row as are this thread's.
            until = min(parts, part + last - first)
            begin, end = part * lanes, min(until * lanes, line.channels)
            for j in range(line.kernel_width):
                place = (i * line.kernel_width + j) * line.channels
                out[place + begin : place + end] = real(0)
            windows.weight_gradient(tile_shape, size, line, i, begin, end)
            first += until - part

    return depthwise_weight_gradient


# ---- pooling ---------------------------------------------------------------------------------------------------------


def _window_work(call):
    return 2 * call.pool_height * call.pool_width * call.arguments.get("pooled", call.out).size


@compiled("pool", work=_window_work)
def pool(tile_shape, real, record):
    size = tile_shape.size

    def pool(address, state, scratch):
        line = at(record, address)
        begin, end = share(line.rows, state)
        windows.pool(tile_shape, size, line, begin, end)

    return pool


@compiled("pool_gradient", work=_window_work)
def pool_gradient(tile_shape, real, record):
    size = tile_shape.size

    def pool_gradient(address, state, scratch):
        line = at(record, address)
        image = line.height * line.width * line.channels
        out = vector(line.out, line.rows * image, real)
        begin, end = share(line.rows, state)
        for n in range(begin, end):
            out[n * image : (n + 1) * image] = real(0)
            windows.pool_gradient(tile_shape, size, line, n, n + 1)

    return pool_gradient


# ---- shapes and sums -------------------------------------------------------------------------------------------------


@compiled("place", work=lambda call: 2 * call.out.size)
def place(tile_shape, real, record):
    def place(address, state, scratch):
        line = at(record, address)
        x = vector(line.x, line.rows * line.height * line.width * line.channels, real)
        out = vector(line.out, line.rows * line.out_height * line.out_width * line.channels, real)
        begin, end = share(line.rows, state)
        windows.place(
            x, line.height, line.width, line.channels, line.top, line.left, line.out_height, line.out_width, out,
            begin, end,
        )  # fmt: skip

    return place


@compiled("add", work=lambda call: 2 * call.out.size)
def add(tile_shape, real, record):
    def add(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        a, b = matrix(line.a, rows, columns, real), matrix(line.b, rows, columns, real)
        out = matrix(line.out, rows, columns, real)
        begin, end = share(rows, state)
        for i in range(begin, end):
            for j in range(columns):
                out[i, j] = a[i, j] + b[i, j]

    return add


# ---- random transformations ------------------------------------------------------------------------------------------


@compiled("draw_transforms", work=lambda call: 60 * call.out.shape[0] * call.chain.shape[0])
def draw_transforms(tile_shape, real, record):
    def draw_transforms(address, state, scratch):
        line = at(record, address)
        chain, out = matrix(line.chain, line.length, 4, np.float64), matrix(line.out, line.rows, 6, np.float64)
        begin, end = share(line.rows, state)
        step = at(STATE, state).step
        resampling.draw_transforms(
            chain, line.height, line.width, line.seed, step, out, line.first_row, begin, end
        )  # fmt: skip

    return draw_transforms


def _field_bytes(call):
    return sum(resampling.field_sizes(*call.out.shape[1:3], call.kernel.size)) * call.out.itemsize


@compiled("draw_displacements", work=lambda call: (20 + 2 * call.kernel.size) * call.out.size, scratch=_field_bytes)
def draw_displacements(tile_shape, real, record):
    size = tile_shape.size

    def draw_displacements(address, state, scratch):
        line = at(record, address)
        height, width, around = line.height, line.width, 2 * (line.taps // 2)
        kernel, out = vector(line.kernel, line.taps, real), vector(line.out, 2 * line.rows * height * width, real)
        wide = 2 * height * (width + around)
        noise = vector(scratch + SCRATCH, wide, real)
        rows = vector(scratch + SCRATCH + wide * size, 2 * (height + around) * width, real)
        begin, end = share(line.rows, state)
        resampling.draw_displacements(
            kernel, real(line.alpha), line.seed, line.stream, at(STATE, state).step, height, width, out, noise, rows,
            line.first_row, begin, end,
        )  # fmt: skip

    return draw_displacements


def _resample_bytes(call):
    """A padded image, and for each pixel of a row its place and two distances."""
    shape, itemsize = call.x.shape[1:], call.x.itemsize
    return resampling.padded_size(*shape) * itemsize + shape[1] * (8 + 2 * itemsize)


@compiled("resample", work=lambda call: 20 * call.out.size, scratch=_resample_bytes)
def resample(tile_shape, real, record):
    size = tile_shape.size

    def resample(address, state, scratch):
        line = at(record, address)
        height, width, channels = line.height, line.width, line.channels
        x = vector(line.x, line.rows * height * width * channels, real)
        out = vector(line.out, line.rows * height * width * channels, real)
        transforms = vector(line.transforms, 6 * line.rows if line.transforms else 0, np.float64)
        displacements = vector(line.displacements, 2 * line.rows * height * width if line.displacements else 0, real)
        places = counts(scratch + SCRATCH, width)
        down = vector(scratch + SCRATCH + 8 * width, width, real)
        right = vector(scratch + SCRATCH + (8 + size) * width, width, real)
        padded = vector(scratch + SCRATCH + (8 + 2 * size) * width, (height + 3) * (width + 3) * channels, real)
        begin, end = share(line.rows, state)
        resampling.resample(
            x, height, width, channels, transforms, displacements, out, padded, places, down, right, begin, end
        )  # fmt: skip

    return resample
