"""Compiled functions of operations on images. See `kinds.py`; shapes of arrays are those of the declarations.

A convolution is a product of patches with the kernel. Patches are laid out a few at a time, see `patches.py`; the
windows of a kernel of one element are the image itself.
"""

from __future__ import annotations

from nnbackend.backends.numba import dense_products, pools
from nnbackend.backends.numba.kinds import SCRATCH, block, compiled, share
from nnbackend.backends.numba.memory import matrix, vector
from nnbackend.backends.numba.patches import add_patches, lay_patches, patch_rows
from nnbackend.backends.numba.records import at

# ---- convolution -----------------------------------------------------------------------------------------------------


def _inner(kernel):
    """Elements of a window."""
    return kernel.size // kernel.shape[3]


def _work(kernel, maps):
    """Multiply-adds of a convolution."""
    return kernel.size * (maps.size // maps.shape[3])


def _is_the_image(call, kernel):
    """Whether the patches are the image itself."""
    geometry = call.stride_y, call.stride_x, call.top, call.left
    return int(kernel.shape[:2] == (1, 1) and geometry == (1, 1, 0, 0) and kernel.shape[2] == _channels(call))


def _channels(call):
    return call.arguments.get("x", call.out).shape[3]


def _kernel_of(call):
    return call.arguments.get("weight", call.out)


def _patch_fields():
    """Fields of the record: the number of patches that are laid out at a time, and whether they are the image."""
    return {
        "patch_rows": lambda call: patch_rows(_inner(_kernel_of(call))),
        "is_image": lambda call: _is_the_image(call, _kernel_of(call)),
    }


def _patch_bytes(call):
    inner = _inner(_kernel_of(call))
    return patch_rows(inner) * inner * call.out.itemsize


@compiled(
    "convolution",
    work=lambda call: _work(call.weight, call.out),
    integers=_patch_fields(),
    scratch=_patch_bytes,
    calls_product=True,
)
def convolution(tile_shape, real, record):
    size = tile_shape.size

    def convolution(address, state, scratch):
        line = at(record, address)
        channels, filters = line.group_channels, line.filters
        inner = line.kernel_height * line.kernel_width * channels
        groups = line.channels // channels
        each = filters // groups
        positions = line.out_height * line.out_width
        x = vector(line.x, line.rows * line.height * line.width * line.channels, real)
        patches = vector(scratch + SCRATCH, line.patch_rows * inner, real)
        begin, end = share(line.rows, state)
        first, end = begin * positions, end * positions
        step = end - first if line.is_image else line.patch_rows
        while first < end:
            count = min(step, end - first)
            for group in range(groups):
                left = line.x + first * inner * size
                if not line.is_image:
                    lay_patches(
                        x, line.height, line.width, line.channels, line.out_height, line.out_width,
                        line.kernel_height, line.kernel_width, group, channels, line.stride_y, line.stride_x,
                        line.dilation_y, line.dilation_x, line.top, line.left, first, count, 0, inner, patches,
                    )  # fmt: skip
                    left = scratch + SCRATCH
                skip = group * each
                dense_products.forward(
                    line.product, left, inner, line.weight + skip * size, filters,
                    line.bias + skip * size if line.bias else 0, line.out + (first * filters + skip) * size, filters,
                    count, each, inner,
                )  # fmt: skip
            first += count

    return convolution


@compiled(
    "convolution_input_gradient",
    work=lambda call: _work(call.weight, call.delta),
    integers=_patch_fields(),
    scratch=_patch_bytes,
    calls_product=True,
)
def convolution_input_gradient(tile_shape, real, record):
    size = tile_shape.size

    def convolution_input_gradient(address, state, scratch):
        line = at(record, address)
        channels, filters = line.group_channels, line.filters
        inner = line.kernel_height * line.kernel_width * channels
        groups = line.channels // channels
        each = filters // groups
        positions, image = line.out_height * line.out_width, line.height * line.width * line.channels
        out = vector(line.out, line.rows * image, real)
        patches = vector(scratch + SCRATCH, line.patch_rows * inner, real)
        begin, end = share(line.rows, state)
        if not line.is_image:
            out[begin * image : end * image] = real(0)
        first, end = begin * positions, end * positions
        step = end - first if line.is_image else line.patch_rows
        while first < end:
            count = min(step, end - first)
            for group in range(groups):
                skip = group * each
                target = line.out + first * inner * size if line.is_image else scratch + SCRATCH
                dense_products.input_gradient(
                    line.product, line.delta + (first * filters + skip) * size, filters, line.weight + skip * size,
                    filters, target, inner, count, inner, each,
                )  # fmt: skip
                if not line.is_image:
                    add_patches(
                        patches, line.height, line.width, line.channels, line.out_height, line.out_width,
                        line.kernel_height, line.kernel_width, group, channels, line.stride_y, line.stride_x,
                        line.dilation_y, line.dilation_x, line.top, line.left, first, count, out,
                    )  # fmt: skip
            first += count

    return convolution_input_gradient


@compiled(
    "convolution_weight_gradient",
    work=lambda call: _work(call.out, call.delta),
    integers=_patch_fields(),
    scratch=_patch_bytes,
    calls_product=True,
)
def convolution_weight_gradient(tile_shape, real, record):
    """Threads share the elements of a window. Each lays out its part of the patches of all positions."""
    size, height = tile_shape.size, tile_shape.rows

    def convolution_weight_gradient(address, state, scratch):
        line = at(record, address)
        channels, filters = line.group_channels, line.filters
        inner = line.kernel_height * line.kernel_width * channels
        groups = line.channels // channels
        each = filters // groups
        end = line.rows * line.out_height * line.out_width
        x = vector(line.x, line.rows * line.height * line.width * line.channels, real)
        patches = vector(scratch + SCRATCH, line.patch_rows * inner, real)
        # Whole tiles.
        low, high = share((inner + height - 1) // height, state)
        low, high = low * height, min(high * height, inner)
        step = end if line.is_image else line.patch_rows
        first = 0
        while first < end and low < high:
            count = min(step, end - first)
            for group in range(groups):
                left, left_row = line.x + (first * inner + low) * size, inner
                if not line.is_image:
                    lay_patches(
                        x, line.height, line.width, line.channels, line.out_height, line.out_width,
                        line.kernel_height, line.kernel_width, group, channels, line.stride_y, line.stride_x,
                        line.dilation_y, line.dilation_x, line.top, line.left, first, count, low, high, patches,
                    )  # fmt: skip
                    left, left_row = scratch + SCRATCH, high - low
                skip = group * each
                dense_products.add_weight_gradient(
                    line.product, left, left_row, line.delta + (first * filters + skip) * size, filters,
                    line.out + (low * filters + skip) * size, filters, high - low, each, count, first > 0,
                )  # fmt: skip
            first += count

    return convolution_weight_gradient


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
        pools.pool(
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
        pools.pool_gradient(
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
        pools.place(
            x, line.height, line.width, line.channels, line.top, line.left, line.out_height, line.out_width, out,
            begin, end,
        )  # fmt: skip

    return place


@compiled("add", work=lambda call: 2 * call.out.size, follows="a")
def add(tile_shape, real, record):
    tile = tile_shape.columns

    def add(address, state, scratch):
        line = at(record, address)
        rows, columns = line.rows, line.features
        a, b, out = (
            matrix(line.a, rows, columns, real), matrix(line.b, rows, columns, real),
            matrix(line.out, rows, columns, real),
        )  # fmt: skip
        begin, end, left, right = block(rows, columns, line.by_columns, tile, state)
        for i in range(begin, end):
            for j in range(left, right):
                out[i, j] = a[i, j] + b[i, j]

    return add
