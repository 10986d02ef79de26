"""Compiled functions of operations on images that are no products: pools, depthwise convolutions, placing, adding, and
random transformations. See `kinds.py`."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba import resampling, windows
from nnbackend.backends.numba.kinds import SCRATCH, STATE, compiled, share
from nnbackend.backends.numba.memory import counts, matrix, vector
from nnbackend.backends.numba.records import at

# ---- depthwise convolution -------------------------------------------------------------------------------------------


def is_depthwise(call):
    """Whether each filter sees one channel, the one with its number."""
    kernel, image = call.arguments.get("weight", call.out), call.arguments.get("x", call.out)
    return kernel.shape[2] == 1 and kernel.shape[3] == image.shape[3] > 1


def _depthwise_work(call):
    kernel, maps = call.arguments.get("weight", call.out), call.arguments.get("delta", call.out)
    return 8 * kernel.shape[0] * kernel.shape[1] * maps.size


@compiled("convolution", accepts=is_depthwise, work=_depthwise_work)
def depthwise_convolution(tile_shape, real, record):
    def depthwise_convolution(address, state, scratch):
        line = at(record, address)
        x = vector(line.x, line.rows * line.height * line.width * line.channels, real)
        weight = vector(line.weight, line.kernel_height * line.kernel_width * line.channels, real)
        bias = vector(line.bias, line.channels if line.bias else 0, real)
        out = vector(line.out, line.rows * line.out_height * line.out_width * line.channels, real)
        begin, end = share(line.rows, state)
        windows.depthwise(line, x, weight, bias, out, begin, end)

    return depthwise_convolution


@compiled("convolution_input_gradient", accepts=is_depthwise, work=_depthwise_work)
def depthwise_input_gradient(tile_shape, real, record):
    def depthwise_input_gradient(address, state, scratch):
        line = at(record, address)
        size = line.height * line.width * line.channels
        delta = vector(line.delta, line.rows * line.out_height * line.out_width * line.channels, real)
        weight = vector(line.weight, line.kernel_height * line.kernel_width * line.channels, real)
        out = vector(line.out, line.rows * size, real)
        begin, end = share(line.rows, state)
        out[begin * size : end * size] = real(0)
        windows.depthwise_input_gradient(line, delta, weight, out, begin, end)

    return depthwise_input_gradient


@compiled("convolution_weight_gradient", accepts=is_depthwise, work=_depthwise_work)
def depthwise_weight_gradient(tile_shape, real, record):
    """Threads share the elements of a window."""

    def depthwise_weight_gradient(address, state, scratch):
        line = at(record, address)
        x = vector(line.x, line.rows * line.height * line.width * line.channels, real)
        delta = vector(line.delta, line.rows * line.out_height * line.out_width * line.channels, real)
        out = vector(line.out, line.kernel_height * line.kernel_width * line.channels, real)
        begin, end = share(line.kernel_height * line.kernel_width, state)
        out[begin * line.channels : end * line.channels] = real(0)
        windows.depthwise_weight_gradient(line, x, delta, out, begin, end)

    return depthwise_weight_gradient


# ---- pooling ---------------------------------------------------------------------------------------------------------


def _window_work(call):
    return 2 * call.pool_height * call.pool_width * call.arguments.get("pooled", call.out).size


def _channel_bytes(call):
    """A number for each channel."""
    return call.x.shape[3] * call.x.itemsize


@compiled("pool", work=_window_work)
def pool(tile_shape, real, record):
    def pool(address, state, scratch):
        line = at(record, address)
        x = vector(line.x, line.rows * line.height * line.width * line.channels, real)
        out = vector(line.out, line.rows * line.out_height * line.out_width * line.channels, real)
        begin, end = share(line.rows, state)
        windows.pool(
            x, line.kind, line.height, line.width, line.channels, line.out_height, line.out_width, line.pool_height,
            line.pool_width, line.stride_y, line.stride_x, line.top, line.left, out, begin, end,
        )  # fmt: skip

    return pool


@compiled("pool_gradient", work=_window_work, scratch=_channel_bytes)
def pool_gradient(tile_shape, real, record):
    def pool_gradient(address, state, scratch):
        line = at(record, address)
        size, pooled_size = line.height * line.width * line.channels, line.out_height * line.out_width * line.channels
        x, out = vector(line.x, line.rows * size, real), vector(line.out, line.rows * size, real)
        pooled = vector(line.pooled, line.rows * pooled_size, real)
        upstream = vector(line.upstream, line.rows * pooled_size, real)
        remaining = vector(scratch + SCRATCH, line.channels, real)
        begin, end = share(line.rows, state)
        out[begin * size : end * size] = real(0)
        windows.pool_gradient(
            x, pooled, upstream, line.kind, line.height, line.width, line.channels, line.out_height, line.out_width,
            line.pool_height, line.pool_width, line.stride_y, line.stride_x, line.top, line.left, out, remaining,
            begin, end,
        )  # fmt: skip

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


@compiled(
    "draw_displacements",
    work=lambda call: (20 + 2 * call.kernel.size) * call.out.size,
    scratch=lambda call: 2 * call.out.nbytes // call.out.shape[0],
)
def draw_displacements(tile_shape, real, record):
    size = tile_shape.size

    def draw_displacements(address, state, scratch):
        line = at(record, address)
        field = 2 * line.height * line.width
        kernel, out = vector(line.kernel, line.taps, real), vector(line.out, line.rows * field, real)
        noise = vector(scratch + SCRATCH, field, real)
        rows = vector(scratch + SCRATCH + field * size, field, real)
        begin, end = share(line.rows, state)
        resampling.draw_displacements(
            kernel, real(line.alpha), line.seed, line.stream, at(STATE, state).step, line.height, line.width, out,
            noise, rows, line.first_row, begin, end,
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
