"""Winograd's convolutions: 16 multiplications where the sum of 3x3 elements takes 36, or 36 where 5x5 take 100.

See `winograd_transforms.py`. A few tiles of 2x2 outputs at a time, the squares of the image that they see are
transformed into matrices, one for each element of a square, with a row for each tile and a column for each channel.
Those are multiplied with the matrices of the kernel, and the products are transformed into outputs.

Rounding errors are in proportion to the largest numbers that a tile sees, not to those of each window. For random
numbers they are smaller than those of a sum in order with kernels of 3x3 elements, and up to twice as large with 5x5
(see `tests/backends/test_numba_images.py`). Where a window contains an infinite element the output is NaN, even if the
sum would be infinite.

Sums are in the order of the channels; in the weight gradient, of the tiles. So threads may share rows of the
batch, or channels, without changing a bit.
"""

from __future__ import annotations

from nnbackend.backends.numba.convolution_tiles import call_tiles, image_of, kernel_of, maps_of, tiles_address
from nnbackend.backends.numba.elementwise import add_run
from nnbackend.backends.numba.jit import internal_as_written
from nnbackend.backends.numba.kinds import SCRATCH, compiled, share
from nnbackend.backends.numba.memory import vector
from nnbackend.backends.numba.packing import transpose_panel
from nnbackend.backends.numba.records import at
from nnbackend.backends.numba.tile_shape import FLOAT32, shape_for
from nnbackend.backends.numba.windows import cut, inside
from nnbackend.backends.numba.winograd_transforms import call_transform, compiled_transform

#: Tiles that are transformed at once, and the most bytes of what they are transformed into, so that it stays in the L2
#: cache.
_TILES = 128
_SQUARES = 1 << 20

#: The most bytes of a transformed kernel in float32.
_KERNEL = 1 << 20

#: Elements between two matrices, so that their rows do not compete for the same lines of the L1 cache.
_GAP = 16

# ---- what is computed when a line is made ----------------------------------------------------------------------------


def _up(count, step):
    return -(-count // step) * step


def _matrices(call):
    """Elements of a square."""
    return (kernel_of(call).shape[0] + 1) ** 2


def _tiles_at_once(call):
    """Rows and columns of tiles."""
    maps = maps_of(call)
    channels, filters = kernel_of(call).shape[2:]
    tiles = min(_TILES, _SQUARES // (_matrices(call) * (channels + filters) * call.out.itemsize))
    columns = min((maps.shape[2] + 1) // 2, tiles)
    return tiles // columns, columns


def _image_space(call, channels):
    rows, columns = _tiles_at_once(call)
    return _matrices(call) * (rows * columns * channels + _GAP)


def _kernel_space(call, inner, columns):
    return _matrices(call) * (_up(inner, FLOAT32.lanes) * _up(columns, FLOAT32.columns) + _GAP)


def _bytes(call):
    channels, filters = kernel_of(call).shape[2:]
    space = _image_space(call, channels) + _image_space(call, filters)
    if call.operation == "convolution_weight_gradient":
        return call.out.itemsize * (space + (_matrices(call) + 1) * (channels * filters + _GAP))
    inner, columns = (channels, filters) if call.operation == "convolution" else (filters, channels)
    space += _kernel_space(call, inner, columns)
    if call.operation == "convolution_input_gradient":
        space += _matrices(call) * channels * filters
    return call.out.itemsize * space


def _fields(**transforms):
    """Fields of the record: sizes, and the addresses of the transforms with these names."""

    def address(name):
        def address_of(call):
            return compiled_transform(shape_for(call.out.dtype), kernel_of(call).shape[0], name).address

        return address_of

    return {
        "tiles": tiles_address,
        "tile_rows": lambda call: _tiles_at_once(call)[0],
        "tile_columns": lambda call: _tiles_at_once(call)[1],
        **{f"transform_{field}": address(name) for field, name in transforms.items()},
    }


def _work(call):
    """Multiply-adds."""
    maps = maps_of(call)
    channels, filters = kernel_of(call).shape[2:]
    return _matrices(call) * channels * filters * (maps.size // maps.shape[3]) // 4


# ---- jitted functions ------------------------------------------------------------------------------------------------


@internal_as_written
def transform_images(
    tile_shape, transform, backwards, extent, side, image, height, width, image_channels, top, left, tiles_y, row, rows,
    column, columns, channels, matrices, matrix, bias,
):  # fmt: skip
    """Transform tiles of images into matrices, or `backwards`.

    `image` is the address of the first channel, `matrices` that of the first matrix, and `matrix` the number of
    elements from one matrix to the next. Squares have `extent` rows in the images and are `side` x `side` elements
    otherwise. The tiles are those of `columns` columns of `rows` rows, which are counted through all images.
    """
    size = tile_shape.size
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
            if backwards:
                call_transform(
                    transform, there, side * matrix, matrix, channels, place, image_row, image_channels, tile_step,
                    bias, channels, count, first, last, left_edge, right_edge,
                )  # fmt: skip
            else:
                call_transform(
                    transform, place, image_row, image_channels, tile_step, there, side * matrix, matrix, channels,
                    bias, channels, count, first, last, left_edge, right_edge,
                )  # fmt: skip
            x += count


@internal_as_written
def multiply(
    tile_shape, line, extent, source, height, width, channels, top, left, kernels, kernel, panel_row, panel_step, bias,
    out_extent, out, out_height, out_width, filters, out_top, out_left, begin, end, space,
):  # fmt: skip
    """Transform images `begin` to `end`, multiply them with a transformed kernel, and transform the products.

    The kernel lies in panels with rows of `panel_row` elements, `panel_step` apart, and `kernel` elements from one
    matrix to the next.
    """
    size, tile, side = tile_shape.size, tile_shape.columns, line.kernel_height + 1
    matrices = side * side
    tiles_y, tiles_x = (line.out_height + 1) // 2, (line.out_width + 1) // 2
    most = line.tile_rows * line.tile_columns
    squares, products = most * channels + _GAP, most * filters + _GAP
    product = space + matrices * squares * size
    for column in range(0, tiles_x, line.tile_columns):
        columns = min(line.tile_columns, tiles_x - column)
        for row in range(begin * tiles_y, end * tiles_y, line.tile_rows):
            rows = min(line.tile_rows, end * tiles_y - row)
            transform_images(
                tile_shape, line.transform_source, False, extent, side, source, height, width, channels, top, left,
                tiles_y, row, rows, column, columns, channels, space, squares, 0,
            )  # fmt: skip
            for place in range(matrices):
                panel = kernels + place * kernel * size
                for skip in range(0, filters, tile):
                    call_tiles(
                        line.tiles, space + place * squares * size, channels, rows * columns, 0, 0, 0, 1, channels, 0,
                        panel, panel_row, 0, 0, product + (place * products + skip) * size, filters, rows * columns,
                        filters - skip, channels,
                    )  # fmt: skip
                    panel += panel_step * size
            transform_images(
                tile_shape, line.transform_result, True, out_extent, side, out, out_height, out_width, filters, out_top,
                out_left, tiles_y, row, rows, column, columns, filters, product, products, bias,
            )  # fmt: skip


def is_winograd(call):
    """Whether a convolution is computed in this way: kernels of 3x3 or 5x5 elements without strides, dilation or
    groups, and enough channels for the products to take more time than the transforms, but few enough for the kernel to
    stay in the L2 cache."""
    kernel, image = kernel_of(call), image_of(call)
    steps = (call.stride_y, call.stride_x, call.dilation_y, call.dilation_x)
    if kernel.shape[:2] not in ((3, 3), (5, 5)) or steps != (1, 1, 1, 1) or image.shape[3] != kernel.shape[2]:
        return False
    channels, filters = kernel.shape[2:]
    return min(channels, filters) >= 16 and _matrices(call) * channels * filters * 4 <= _KERNEL


# ---- the three products ----------------------------------------------------------------------------------------------


@compiled(
    "convolution",
    accepts=is_winograd,
    work=_work,
    integers=_fields(kernel="kernel", source="image", result="product"),
    scratch=_bytes,
)
def winograd_convolution(tile_shape, real, record):
    size, tile = tile_shape.size, tile_shape.columns

    def winograd_convolution(address, state, scratch):
        line = at(record, address)
        channels, filters = line.channels, line.filters
        kernels, matrix = scratch + SCRATCH, channels * filters
        kernel, rows = matrix + _GAP, line.kernel_height
        call_transform(
            line.transform_kernel, line.weight, rows * matrix, matrix, filters, kernels, (rows + 1) * kernel, kernel,
            filters, 0, filters, channels, 0, rows, 0, rows,
        )  # fmt: skip
        begin, end = share(line.rows, state)
        multiply(
            tile_shape, line, rows + 1, line.x, line.height, line.width, channels, line.top, line.left, kernels, kernel,
            filters, tile, line.bias, 2, line.out, line.out_height, line.out_width, filters, 0, 0, begin, end,
            kernels + (rows + 1) ** 2 * kernel * size,
        )  # fmt: skip

    return winograd_convolution


@compiled(
    "convolution_input_gradient",
    accepts=is_winograd,
    work=_work,
    integers=_fields(kernel="kernel", source="delta", result="image gradient"),
    scratch=_bytes,
)
def winograd_input_gradient(tile_shape, real, record):
    """Squares of the image overlap, so they are added up."""
    size, tile, lanes = tile_shape.size, tile_shape.columns, tile_shape.lanes

    def winograd_input_gradient(address, state, scratch):
        line = at(record, address)
        channels, filters, rows = line.channels, line.filters, line.kernel_height
        kernels, matrix, matrices = scratch + SCRATCH, channels * filters, (rows + 1) ** 2
        panel = (filters + lanes - 1) // lanes * lanes * tile
        kernel = (channels + tile - 1) // tile * panel + _GAP
        space = kernels + matrices * kernel * size
        call_transform(
            line.transform_kernel, line.weight, rows * matrix, matrix, filters, space, (rows + 1) * matrix, matrix,
            filters, 0, filters, channels, 0, rows, 0, rows,
        )  # fmt: skip
        for place in range(matrices):
            for column in range(0, channels, tile):
                source = space + (place * matrix + column * filters) * size
                target = kernels + (place * kernel + column // tile * panel) * size
                transpose_panel(tile_shape, source, filters, target, channels - column, filters, source)
        begin, end = share(line.rows, state)
        image = line.height * line.width * channels
        vector(line.out + begin * image * size, (end - begin) * image, real)[:] = real(0)
        multiply(
            tile_shape, line, 2, line.delta, line.out_height, line.out_width, filters, 0, 0, kernels, kernel, tile,
            panel, 0, rows + 1, line.out, line.height, line.width, channels, line.top, line.left, begin, end,
            space + matrices * matrix * size,
        )  # fmt: skip

    return winograd_input_gradient


@compiled(
    "convolution_weight_gradient",
    accepts=is_winograd,
    work=_work,
    integers=_fields(x="image", delta="delta", result="weight gradient"),
    scratch=_bytes,
)
def winograd_weight_gradient(tile_shape, real, record):
    """Threads share the channels, as many as a tile of a product has rows at a time. The tiles that are transformed at
    once are summed up first, for the last transform makes rounding errors larger."""
    size, tile, height = tile_shape.size, tile_shape.columns, tile_shape.rows

    def winograd_weight_gradient(address, state, scratch):
        line = at(record, address)
        filters, side = line.filters, line.kernel_height + 1
        matrices = side * side
        low, high = share((line.channels + height - 1) // height, state)
        low, high = low * height, min(high * height, line.channels)
        if low >= high:
            return
        channels = high - low
        tiles_y, tiles_x = (line.out_height + 1) // 2, (line.out_width + 1) // 2
        most = line.tile_rows * line.tile_columns
        squares, deltas, sums = most * channels + _GAP, most * filters + _GAP, channels * filters + _GAP
        square = scratch + SCRATCH
        delta = square + matrices * squares * size
        total = delta + matrices * deltas * size
        part = total + matrices * sums * size
        vector(total, matrices * sums, real)[:] = real(0)
        for column in range(0, tiles_x, line.tile_columns):
            columns = min(line.tile_columns, tiles_x - column)
            for row in range(0, line.rows * tiles_y, line.tile_rows):
                rows = min(line.tile_rows, line.rows * tiles_y - row)
                transform_images(
                    tile_shape, line.transform_x, False, side, side, line.x + low * size, line.height, line.width,
                    line.channels, line.top, line.left, tiles_y, row, rows, column, columns, channels, square, squares,
                    0,
                )  # fmt: skip
                transform_images(
                    tile_shape, line.transform_delta, False, 2, side, line.delta, line.out_height, line.out_width,
                    filters, 0, 0, tiles_y, row, rows, column, columns, filters, delta, deltas, 0,
                )  # fmt: skip
                for place in range(matrices):
                    for skip in range(0, filters, tile):
                        call_tiles(
                            line.tiles, square + place * squares * size, 1, channels, 0, 0, 0, channels,
                            rows * columns, 0, delta + (place * deltas + skip) * size, filters, 0, 0,
                            part + skip * size, filters, channels, filters - skip, rows * columns,
                        )  # fmt: skip
                    add_run(tile_shape, part, total + place * sums * size, channels * filters)
        matrix = line.channels * filters
        call_transform(
            line.transform_result, total, side * sums, sums, filters, line.out + low * filters * size,
            line.kernel_height * matrix, matrix, filters, 0, filters, channels, 0, side, 0, side,
        )  # fmt: skip

    return winograd_weight_gradient
