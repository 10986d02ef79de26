"""Winograd's convolutions of 3x3 elements: 16 multiplications where the sum takes 36. See `winograd_transforms.py`.

A few tiles of 2x2 outputs at a time, the squares of the image that they see are transformed into 16 matrices, one for
each element of a square, with a row for each tile and a column for each channel. Those are multiplied with the 16
matrices of the kernel, and the products are transformed into outputs.

Rounding errors are in proportion to the largest numbers that a tile sees, not to those of each window. For random
numbers they are no larger than those of a sum in order (see `tests/backends/test_numba_images.py`). Where a window
contains an infinite element the output is NaN, even if the sum would be infinite.

Sums are in the order of the channels; in the weight gradient, over the tiles in order. So threads may share rows of the
batch, or channels, without changing a bit.
"""

from __future__ import annotations

from nnbackend.backends.numba.convolution_tiles import call_tiles, tiles_address
from nnbackend.backends.numba.jit import internal_as_written
from nnbackend.backends.numba.kinds import SCRATCH, compiled, share
from nnbackend.backends.numba.packing import transpose_panel
from nnbackend.backends.numba.records import at
from nnbackend.backends.numba.tile_shape import FLOAT32
from nnbackend.backends.numba.windows import cut, inside
from nnbackend.backends.numba.winograd_transforms import DELTA, IMAGE, KERNEL, PRODUCT, WEIGHT_GRADIENT, transform

#: Tiles that are transformed at once, and the most bytes of what they are transformed into, so that it stays in the L2
#: cache.
_TILES = 128
_SQUARES = 1 << 20

#: Elements between two of 16 matrices, so that their rows do not compete for the same lines of the L1 cache.
_GAP = 16

# ---- what is computed when a line is made ----------------------------------------------------------------------------


def _up(count, step):
    return -(-count // step) * step


def _tiles_at_once(call):
    """Rows and columns of tiles."""
    maps = call.out if call.operation == "convolution_input_gradient" else call.arguments.get("delta", call.out)
    channels, filters = call.arguments.get("weight", call.out).shape[2:]
    tiles = min(_TILES, _SQUARES // (16 * (channels + filters) * call.out.itemsize))
    columns = min((maps.shape[2] + 1) // 2, tiles)
    return tiles // columns, columns


def _image_space(call, channels):
    rows, columns = _tiles_at_once(call)
    return 16 * (rows * columns * channels + _GAP)


def _kernel_space(inner, columns):
    return 16 * (_up(inner, FLOAT32.lanes) * _up(columns, FLOAT32.columns) + _GAP)


def _bytes(call):
    weight = call.arguments.get("weight", call.out)
    channels, filters = weight.shape[2:]
    space = _image_space(call, channels) + _image_space(call, filters)
    if call.operation == "convolution_weight_gradient":
        return call.out.itemsize * (space + 16 * (channels * filters + _GAP))
    inner, columns = (channels, filters) if call.operation == "convolution" else (filters, channels)
    space += _kernel_space(inner, columns)
    if call.operation == "convolution_input_gradient":
        space += 16 * channels * filters
    return call.out.itemsize * space


_FIELDS = {
    "tiles": tiles_address,
    "tile_rows": lambda call: _tiles_at_once(call)[0],
    "tile_columns": lambda call: _tiles_at_once(call)[1],
}


def _work(call):
    """Multiply-adds."""
    maps = call.arguments.get("delta", call.out)
    return call.arguments.get("weight", call.out).size * (maps.size // maps.shape[3]) * 4 // 9


# ---- jitted functions ------------------------------------------------------------------------------------------------


@internal_as_written
def transform_images(
    tile_shape, kind, image, height, width, image_channels, top, left, tiles_y, row, rows, column, columns, channels,
    matrices, matrix, bias,
):  # fmt: skip
    """Transform tiles of images into 16 matrices, or products into images.

    `image` is the address of the first channel, `matrices` that of the first matrix, and `matrix` the number of
    elements from one matrix to the next. The tiles are those of `columns` columns of `rows` rows, which are counted
    through all images.
    """
    size = tile_shape.size
    extent = 4 if kind == IMAGE else 2
    low, high = inside(width, column + columns, extent, 2, 1, left)
    image_row, tile_step = width * image_channels, 2 * image_channels
    for r in range(rows):
        n, y = divmod(row + r, tiles_y)
        y = 2 * y - top
        first, last = cut(y, height, extent, 1)
        start = image + ((n * height + y) * width - left) * image_channels * size
        x = column
        while x < column + columns:
            z = 2 * x - left
            count = high - x if low <= x < high else 1
            left_edge, right_edge = cut(z, width, extent, 1)
            place, number = start + 2 * x * image_channels * size, r * columns + x - column
            there = matrices + number * channels * size
            if kind == PRODUCT:
                transform(
                    tile_shape, kind, there, 4 * matrix, matrix, channels, place, image_row, image_channels, tile_step,
                    bias, channels, count, first, last, left_edge, right_edge,
                )  # fmt: skip
            else:
                transform(
                    tile_shape, kind, place, image_row, image_channels, tile_step, there, 4 * matrix, matrix, channels,
                    bias, channels, count, first, last, left_edge, right_edge,
                )  # fmt: skip
            x += count


@internal_as_written
def convolve(
    tile_shape, line, image, height, width, channels, top, left, kernels, kernel, panel_row, panel_step, bias, out,
    out_height, out_width, filters, begin, end, space,
):  # fmt: skip
    """Convolve images `begin` to `end`, as described above, with a transformed kernel: panels with rows of `panel_row`
    elements, `panel_step` apart, and `kernel` elements from one matrix to the next."""
    size, tile = tile_shape.size, tile_shape.columns
    tiles_y, tiles_x = (out_height + 1) // 2, (out_width + 1) // 2
    most = line.tile_rows * line.tile_columns
    squares, products = most * channels + _GAP, most * filters + _GAP
    product = space + 16 * squares * size
    for column in range(0, tiles_x, line.tile_columns):
        columns = min(line.tile_columns, tiles_x - column)
        for row in range(begin * tiles_y, end * tiles_y, line.tile_rows):
            rows = min(line.tile_rows, end * tiles_y - row)
            transform_images(
                tile_shape, IMAGE, image, height, width, channels, top, left, tiles_y, row, rows, column, columns,
                channels, space, squares, 0,
            )  # fmt: skip
            for place in range(16):
                panel = kernels + place * kernel * size
                for skip in range(0, filters, tile):
                    call_tiles(
                        line.tiles, space + place * squares * size, channels, rows * columns, 0, 0, 0, 1, channels, 0,
                        panel, panel_row, 0, 0, product + (place * products + skip) * size, filters, rows * columns,
                        filters - skip, channels,
                    )  # fmt: skip
                    panel += panel_step * size
            transform_images(
                tile_shape, PRODUCT, out, out_height, out_width, filters, 0, 0, tiles_y, row, rows, column, columns,
                filters, product, products, bias,
            )  # fmt: skip


def is_winograd(call):
    """Whether a convolution is computed in this way: kernels of 3x3 elements without strides, dilation or groups, and
    enough channels for the products to take more time than the transforms, but few enough for the kernel to stay in
    the L2 cache."""
    kernel, image = call.arguments.get("weight", call.out), call.arguments.get("x", call.out)
    steps = (call.stride_y, call.stride_x, call.dilation_y, call.dilation_x)
    if kernel.shape[:2] != (3, 3) or steps != (1, 1, 1, 1) or image.shape[3] != kernel.shape[2]:
        return False
    return min(kernel.shape[2:]) >= 16 and kernel.shape[2] * kernel.shape[3] <= 1 << 14


# ---- the three products ----------------------------------------------------------------------------------------------


@compiled("convolution", accepts=is_winograd, work=_work, integers=_FIELDS, scratch=_bytes)
def winograd_convolution(tile_shape, real, record):
    size, tile = tile_shape.size, tile_shape.columns

    def winograd_convolution(address, state, scratch):
        line = at(record, address)
        channels, filters = line.channels, line.filters
        kernels, matrix = scratch + SCRATCH, channels * filters
        kernel = matrix + _GAP
        transform(
            tile_shape, KERNEL, line.weight, 3 * matrix, matrix, filters, kernels, 4 * kernel, kernel, filters, 0,
            filters, channels, 0, 3, 0, 3,
        )  # fmt: skip
        begin, end = share(line.rows, state)
        convolve(
            tile_shape, line, line.x, line.height, line.width, channels, line.top, line.left, kernels, kernel, filters,
            tile, line.bias, line.out, line.out_height, line.out_width, filters, begin, end,
            kernels + 16 * kernel * size,
        )  # fmt: skip

    return winograd_convolution


@compiled("convolution_input_gradient", accepts=is_winograd, work=_work, integers=_FIELDS, scratch=_bytes)
def winograd_input_gradient(tile_shape, real, record):
    """The convolution of `delta` with the kernel turned round, and its channels and filters exchanged."""
    size, tile, lanes = tile_shape.size, tile_shape.columns, tile_shape.lanes

    def winograd_input_gradient(address, state, scratch):
        line = at(record, address)
        channels, filters = line.channels, line.filters
        kernels, matrix = scratch + SCRATCH, channels * filters
        panel = (filters + lanes - 1) // lanes * lanes * tile
        kernel = (channels + tile - 1) // tile * panel + _GAP
        space = kernels + 16 * kernel * size
        transform(
            tile_shape, KERNEL, line.weight + 8 * matrix * size, -3 * matrix, -matrix, filters, space, 4 * matrix,
            matrix, filters, 0, filters, channels, 0, 3, 0, 3,
        )  # fmt: skip
        for place in range(16):
            for column in range(0, channels, tile):
                source = space + (place * matrix + column * filters) * size
                target = kernels + (place * kernel + column // tile * panel) * size
                transpose_panel(tile_shape, source, filters, target, channels - column, filters, source)
        begin, end = share(line.rows, state)
        convolve(
            tile_shape, line, line.delta, line.out_height, line.out_width, filters, 2 - line.top, 2 - line.left,
            kernels, kernel, tile, panel, 0, line.out, line.height, line.width, channels, begin, end,
            space + 16 * matrix * size,
        )  # fmt: skip

    return winograd_input_gradient


@compiled("convolution_weight_gradient", accepts=is_winograd, work=_work, integers=_FIELDS, scratch=_bytes)
def winograd_weight_gradient(tile_shape, real, record):
    """Threads share the channels, as many as a tile of a product has rows at a time."""
    size, tile, height = tile_shape.size, tile_shape.columns, tile_shape.rows

    def winograd_weight_gradient(address, state, scratch):
        line = at(record, address)
        filters = line.filters
        low, high = share((line.channels + height - 1) // height, state)
        low, high = low * height, min(high * height, line.channels)
        if low >= high:
            return
        channels = high - low
        tiles_y, tiles_x = (line.out_height + 1) // 2, (line.out_width + 1) // 2
        most = line.tile_rows * line.tile_columns
        squares, deltas, sums = most * channels + _GAP, most * filters + _GAP, channels * filters + _GAP
        square = scratch + SCRATCH
        delta = square + 16 * squares * size
        total = delta + 16 * deltas * size
        for column in range(0, tiles_x, line.tile_columns):
            columns = min(line.tile_columns, tiles_x - column)
            for row in range(0, line.rows * tiles_y, line.tile_rows):
                rows = min(line.tile_rows, line.rows * tiles_y - row)
                transform_images(
                    tile_shape, IMAGE, line.x + low * size, line.height, line.width, line.channels, line.top,
                    line.left, tiles_y, row, rows, column, columns, channels, square, squares, 0,
                )  # fmt: skip
                transform_images(
                    tile_shape, DELTA, line.delta, line.out_height, line.out_width, filters, 0, 0, tiles_y, row, rows,
                    column, columns, filters, delta, deltas, 0,
                )  # fmt: skip
                for place in range(16):
                    for skip in range(0, filters, tile):
                        target = total + (place * sums + skip) * size
                        call_tiles(
                            line.tiles, square + place * squares * size, 1, channels, 0, 0, 0, channels,
                            rows * columns, 0, delta + (place * deltas + skip) * size, filters,
                            target if row + column > 0 else 0, filters, target, filters, channels, filters - skip,
                            rows * columns,
                        )  # fmt: skip
        matrix = line.channels * filters
        transform(
            tile_shape, WEIGHT_GRADIENT, total, 4 * sums, sums, filters, line.out + low * filters * size, 3 * matrix,
            matrix, filters, 0, filters, channels, 0, 3, 0, 3,
        )  # fmt: skip

    return winograd_weight_gradient
