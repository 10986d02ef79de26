"""Compiled functions of convolutions. See `kinds.py`.

A convolution is a product of the windows of an image with the kernel. Windows are not copied: a tile reads them from
the image. Its rows are the positions of the output, row after row, and k runs over the elements of a window, of which
those of one window row are contiguous (if the window is not dilated and there is one group; otherwise the channels of
one element). In the weight gradient the rows of a tile are elements of a window, and k runs over the positions.

Images with padding are first copied, a few at a time, into memory with zeros around them.

Sums are in the order of k, the weight gradient's over the images in order, so threads may share rows of the batch, or
elements of the kernel, without changing a bit.
"""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba.convolution_tiles import call_tiles, image_of, kernel_of, maps_of, tiles_address
from nnbackend.backends.numba.elementwise import add_run
from nnbackend.backends.numba.image_operations import is_depthwise
from nnbackend.backends.numba.jit import internal
from nnbackend.backends.numba.kinds import SCRATCH, compiled, share
from nnbackend.backends.numba.memory import vector
from nnbackend.backends.numba.packing import copy_panel, panel_space, transpose_panel
from nnbackend.backends.numba.records import at
from nnbackend.backends.numba.tile_shape import FLOAT32
from nnbackend.backends.numba.windows import cut_out, pad
from nnbackend.backends.numba.winograd import is_winograd

#: Positions of the output that are computed with one panel of the kernel; more would not make copying it cheaper.
_POSITIONS = 256

#: Bytes of the copies with padding that a thread keeps at a time, if more than one image.
_COPIES = 1 << 20

# ---- what is computed when a line is made ----------------------------------------------------------------------------


def _extent(call, axis):
    """Rows or columns of an image with as much padding as the windows need, or as it has."""
    stride, dilation, before = (
        (call.stride_y, call.dilation_y, call.top) if axis == 1 else (call.stride_x, call.dilation_x, call.left)
    )
    covered = (maps_of(call).shape[axis] - 1) * stride + (kernel_of(call).shape[axis - 1] - 1) * dilation + 1
    return max(covered, before + image_of(call).shape[axis])


def _is_padded(call):
    return int(any(_extent(call, axis) > image_of(call).shape[axis] for axis in (1, 2)))


def _padded_image_bytes(call):
    return _extent(call, 1) * _extent(call, 2) * image_of(call).shape[3] * call.out.itemsize


def _images_at_once(call):
    images = _POSITIONS // (maps_of(call).shape[1] * maps_of(call).shape[2])
    if _is_padded(call):
        images = min(images, _COPIES // _padded_image_bytes(call))
    return max(1, images)


def _padded_bytes(call):
    return _images_at_once(call) * _padded_image_bytes(call) if _is_padded(call) else 0


def _has_products(call):
    """Whether it is neither depthwise, see `image_operations.py`, nor one of those in `winograd.py`."""
    return not is_depthwise(call) and not is_winograd(call)


_FIELDS = {
    "tiles": tiles_address,
    "images": _images_at_once,
    "padded": _is_padded,
    "padded_height": lambda call: _extent(call, 1),
    "padded_width": lambda call: _extent(call, 2),
}


def _is_better_by_runs(call):
    """Whether the input gradient fills vectors better with rows of a window than with the channels of one element."""
    kernel, lanes = call.weight, FLOAT32.lanes * 4 // call.out.itemsize
    channels, run = kernel.shape[2], kernel.shape[1] * kernel.shape[2]
    if kernel.shape[1] == 1 or call.dilation_x != 1 or channels != call.out.shape[3]:
        return False

    def filled(count):
        return count / (-(-count // lanes) * lanes)

    # Adding up takes some time.
    return 0.9 * filled(run) > filled(channels)


def _run_bytes(call):
    """Memory for a panel's width of sums for each position of a row."""
    return call.delta.shape[2] * FLOAT32.columns * 4


def _work(call):
    """Multiply-adds."""
    return kernel_of(call).size * (maps_of(call).size // maps_of(call).shape[3])


# ---- runs ------------------------------------------------------------------------------------------------------------


@internal
def runs_of(line):
    """How a window is read: the number of parts that are read one by one (the whole, or its rows), the segments of a
    part, the elements of a segment, and those from one segment to the next."""
    channels = line.group_channels
    if line.dilation_x == 1 and channels == line.channels:
        return 1, line.kernel_height, line.kernel_width * channels, line.dilation_y * line.padded_width * line.channels
    return line.kernel_height, line.kernel_width, channels, line.dilation_x * line.channels


# ---- the three products ----------------------------------------------------------------------------------------------


@compiled("convolution", accepts=_has_products, work=_work, integers=_FIELDS, scratch=_padded_bytes)
def convolution(tile_shape, real, record):
    size, depth, tile = tile_shape.size, tile_shape.depth, tile_shape.columns

    def convolution(address, state, scratch):
        line = at(record, address)
        panel = panel_space(tile_shape)
        filters = line.filters
        groups = line.channels // line.group_channels
        each = filters // groups
        image_size = line.padded_height * line.padded_width * line.channels
        x = vector(line.x, line.rows * line.height * line.width * line.channels, real)
        padded = vector(scratch + SCRATCH, line.images * image_size, real)
        positions = line.out_height * line.out_width
        parts, count, length, jump = runs_of(line)
        row_step, column_step = line.stride_y * line.padded_width * line.channels, line.stride_x * line.channels
        # As many segments of a window, or as much of one, as a panel has rows.
        together = max(1, depth // length)
        piece = length if length <= depth else (length + (length - 1) // depth) // ((length - 1) // depth + 1)
        begin, end = share(line.rows, state)
        for first in range(begin, end, line.images):
            last = min(first + line.images, end)
            images = line.x + first * image_size * size
            if line.padded:
                pad(x, line, first, last, padded)
                images = scratch + SCRATCH
            for group in range(groups):
                for column in range(0, each, tile):
                    skip = group * each + column
                    before = line.bias + skip * size if line.bias else 0
                    before_row = 0
                    for part in range(parts):
                        for segment in range(0, count, together):
                            segments = min(together, count - segment)
                            for place in range(0, length, piece):
                                inner = min(piece, length - place) * segments
                                k = (part * count + segment) * length + place
                                source = line.weight + (k * filters + skip) * size
                                copy_panel(tile_shape, source, filters, panel, each - column, inner, source)
                                offset = segment * jump + place + group * line.group_channels
                                offset += part * line.dilation_y * line.padded_width * line.channels
                                for n in range(last - first):
                                    target = line.out + ((first + n) * positions * filters + skip) * size
                                    call_tiles(
                                        line.tiles, images + (n * image_size + offset) * size, column_step,
                                        line.out_width, row_step, line.out_width * filters, 0, 1,
                                        min(piece, length - place), jump, panel, tile,
                                        target if before_row else before, before_row, target, filters, positions,
                                        each - column, inner,
                                    )  # fmt: skip
                                before_row = filters

    return convolution


@compiled(
    "convolution_input_gradient",
    accepts=lambda call: _has_products(call) and not _is_better_by_runs(call),
    work=_work,
    integers=_FIELDS,
    scratch=_padded_bytes,
)
def convolution_input_gradient(tile_shape, real, record):
    """The gradients of one element of the windows of a row of the output, which do not overlap, are added to the
    image."""
    size, depth, tile = tile_shape.size, tile_shape.depth, tile_shape.columns

    def convolution_input_gradient(address, state, scratch):
        line = at(record, address)
        panel = panel_space(tile_shape)
        filters, channels = line.filters, line.group_channels
        groups = line.channels // channels
        each = filters // groups
        image_size = line.padded_height * line.padded_width * line.channels
        out = vector(line.out, line.rows * line.height * line.width * line.channels, real)
        padded = vector(scratch + SCRATCH, line.images * image_size if line.padded else 0, real)
        row_step, column_step = line.stride_y * line.padded_width * line.channels, line.stride_x * line.channels
        positions = line.out_height * line.out_width
        begin, end = share(line.rows, state)
        for first in range(begin, end, line.images):
            last = min(first + line.images, end)
            images = line.out + first * image_size * size
            if line.padded:
                images = scratch + SCRATCH
                padded[: (last - first) * image_size] = real(0)
            else:
                out[first * image_size : last * image_size] = real(0)
            for i, j, group in np.ndindex(line.kernel_height, line.kernel_width, groups):
                for column, k in np.ndindex((channels + tile - 1) // tile, (each + depth - 1) // depth):
                    column *= tile
                    k *= depth
                    inner = min(depth, each - k)
                    row = (i * line.kernel_width + j) * channels + column
                    source = line.weight + (row * filters + group * each + k) * size
                    transpose_panel(tile_shape, source, filters, panel, channels - column, inner, source)
                    offset = i * line.dilation_y * line.padded_width + j * line.dilation_x
                    offset = offset * line.channels + group * channels + column
                    for n in range(last - first):
                        delta = line.delta + ((first + n) * positions * filters + group * each + k) * size
                        target = images + (n * image_size + offset) * size
                        call_tiles(
                            line.tiles, delta, filters, line.out_width, line.out_width * filters, row_step, 0, 1, inner,
                            0, panel, tile, target, column_step, target, column_step, positions, channels - column,
                            inner,
                        )  # fmt: skip
            if line.padded:
                cut_out(padded, line, first, last, out)

    return convolution_input_gradient


@internal
def rows_above(line, y, i, rows):
    """Which of rows `i` to `i + rows` of a window can lie above row `y` of the image with padding, as a range from 0,
    and the row of the output whose window's row is the first of them. Several rows only without strides."""
    first, rest = divmod(y - i * line.dilation_y, line.stride_y)
    if line.stride_y > 1:
        return 0, int(rest == 0 and 0 <= first < line.out_height), first
    # The last row of the output, if the first lies beyond it.
    low = max(0, (first - line.out_height + line.dilation_y) // line.dilation_y)
    return low, min(rows, first // line.dilation_y + 1), first - low * line.dilation_y


@compiled(
    "convolution_input_gradient",
    accepts=lambda call: _has_products(call) and _is_better_by_runs(call),
    work=_work,
    integers=_FIELDS,
    scratch=lambda call: _padded_bytes(call) + _run_bytes(call),
)
def input_gradient_by_runs(tile_shape, real, record):
    """If the channels do not fill a tile's vectors: the gradients of a row of each window above a row of the image,
    where k runs over the filters and the window rows, are computed in other memory and then added to the image."""
    size, depth, tile, lanes = tile_shape.size, tile_shape.depth, tile_shape.columns, tile_shape.lanes

    def input_gradient_by_runs(address, state, scratch):
        line = at(record, address)
        panel = panel_space(tile_shape)
        filters, run = line.filters, line.kernel_width * line.channels
        image_size = line.padded_height * line.padded_width * line.channels
        out = vector(line.out, line.rows * line.height * line.width * line.channels, real)
        padded = vector(scratch + SCRATCH, line.images * image_size if line.padded else 0, real)
        sums = scratch + SCRATCH + padded.size * size
        column_step, delta_row = line.stride_x * line.channels, line.out_width * filters
        # As many rows of a window as a panel has room for; one is transposed in whole vectors.
        room = (filters + lanes - 1) // lanes * lanes
        together = 1 + max(0, depth - room) // filters if line.stride_y == 1 else 1
        # Positions whose runs do not overlap are this many apart; a sum that was just stored is slow to load.
        apart = (tile - 1) // column_step + 1
        begin, end = share(line.rows, state)
        for first in range(begin, end, line.images):
            last = min(first + line.images, end)
            images = line.out + first * image_size * size
            if line.padded:
                images = scratch + SCRATCH
                padded[: (last - first) * image_size] = real(0)
            else:
                out[first * image_size : last * image_size] = real(0)
            for i in range(0, line.kernel_height, together):
                rows = min(together, line.kernel_height - i)
                for column, k in np.ndindex((run + tile - 1) // tile, (filters + depth - 1) // depth):
                    column *= tile
                    k *= depth
                    inner = min(depth, filters - k)
                    for row in range(rows):
                        source = line.weight + (((i + row) * run + column) * filters + k) * size
                        target = panel + row * inner * tile * size
                        transpose_panel(tile_shape, source, filters, target, run - column, inner, source)
                    for n, y in np.ndindex(last - first, line.padded_height):
                        low, high, above = rows_above(line, y, i, rows)
                        if low >= high:
                            continue
                        delta = ((first + n) * line.out_height + above) * delta_row + k
                        call_tiles(
                            line.tiles, line.delta + delta * size, filters, line.out_width, 0, 0, 0, 1, inner,
                            -line.dilation_y * delta_row, panel + low * inner * tile * size, tile, 0, 0, sums, tile,
                            line.out_width, run - column, inner * (high - low),
                        )  # fmt: skip
                        target = images + (n * image_size + y * line.padded_width * line.channels + column) * size
                        for phase in range(apart):
                            for x in range(phase, line.out_width, apart):
                                add_run(
                                    tile_shape, sums + x * tile * size, target + x * column_step * size,
                                    min(tile, run - column),
                                )  # fmt: skip
            if line.padded:
                cut_out(padded, line, first, last, out)

    return input_gradient_by_runs


@compiled("convolution_weight_gradient", accepts=_has_products, work=_work, integers=_FIELDS, scratch=_padded_bytes)
def convolution_weight_gradient(tile_shape, real, record):
    """Threads share the elements of a window."""
    size, depth, tile, height = tile_shape.size, tile_shape.depth, tile_shape.columns, tile_shape.rows

    def convolution_weight_gradient(address, state, scratch):
        line = at(record, address)
        panel = panel_space(tile_shape)
        filters, channels = line.filters, line.group_channels
        groups = line.channels // channels
        each = filters // groups
        image_size = line.padded_height * line.padded_width * line.channels
        x = vector(line.x, line.rows * line.height * line.width * line.channels, real)
        padded = vector(scratch + SCRATCH, line.images * image_size, real)
        parts, count, length, jump = runs_of(line)
        row_step, column_step = line.stride_y * line.padded_width * line.channels, line.stride_x * line.channels
        # As many rows of the output, or as much of one, as a panel has rows.
        together = max(1, depth // line.out_width)
        piece = min(line.out_width, depth)
        size_of_part = count * length
        # Whole tiles.
        low, high = share((parts * size_of_part + height - 1) // height, state)
        low, high = low * height, min(high * height, parts * size_of_part)
        for first in range(0, line.rows if low < high else 0, line.images):
            last = min(first + line.images, line.rows)
            images = line.x + first * image_size * size
            if line.padded:
                pad(x, line, first, last, padded)
                images = scratch + SCRATCH
            for n in range(last - first):
                for row in range(0, line.out_height, together):
                    rows = min(together, line.out_height - row)
                    for place in range(0, line.out_width, piece):
                        inner = min(piece, line.out_width - place) * rows
                        position = ((first + n) * line.out_height + row) * line.out_width + place
                        continued = first + n + row + place > 0
                        source = images + (n * image_size + row * row_step + place * column_step) * size
                        for group in range(groups):
                            for column in range(0, each, tile):
                                skip = group * each + column
                                delta = line.delta + (position * filters + skip) * size
                                copy_panel(tile_shape, delta, filters, panel, each - column, inner, delta)
                                for part in range(low // size_of_part, (high - 1) // size_of_part + 1):
                                    begin = max(low, part * size_of_part)
                                    end = min(high, (part + 1) * size_of_part)
                                    segment, element = divmod(begin - part * size_of_part, length)
                                    offset = part * line.dilation_y * line.padded_width * line.channels
                                    offset += segment * jump + group * channels
                                    target = line.out + ((begin - element) * filters + skip) * size
                                    call_tiles(
                                        line.tiles, source + offset * size, 1, length, jump, length * filters, element,
                                        column_step, min(piece, line.out_width - place), row_step, panel, tile,
                                        target if continued else 0, filters, target, filters, end - begin,
                                        each - column, inner,
                                    )  # fmt: skip

    return convolution_weight_gradient
