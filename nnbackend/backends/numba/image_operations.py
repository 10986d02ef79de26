"""Compiled functions of pools and other simple operations on images. See `kinds.py`."""

from __future__ import annotations

from nnbackend.backends.numba import pools
from nnbackend.backends.numba.kinds import SCRATCH, block, compiled, share
from nnbackend.backends.numba.memory import matrix, vector
from nnbackend.backends.numba.records import at

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
