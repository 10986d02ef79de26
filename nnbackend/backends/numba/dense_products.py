"""Matrix products of dense layers on one thread, for use by jitted functions.

A matrix is given as the address of its first element and the distance between its rows in elements, which is at least
the number of columns. Sizes are 1 or more, `inner` may be 0, and addresses need only be aligned as elements are. The
result must not overlap the operands.

The product of a `TileShape` is compiled once, and all operations call it by its address, `product_address`. Compiling
it into each of them would take seconds.

**A part of a result has the bits of the whole.** Each element is the sum over k in order, of fused multiply-adds where
the CPU has them, starting from the bias or from 0. A caller may therefore compute any range of rows or columns by
moving the addresses, and threads may share a product in any way.

NaN and infinity propagate as IEEE 754 says: an operand of 0 does not hide them.
"""

from __future__ import annotations

import functools

from numba import types
from numba.extending import intrinsic

from nnbackend.backends.numba import ahead
from nnbackend.backends.numba.jit import as_written, callback_of, compiled, is_on_disk
from nnbackend.backends.numba.packing import (
    copy_panel,
    copy_strips,
    panel_space,
    strip_space,
    transpose_panel,
    transpose_strips,
)
from nnbackend.backends.numba.product_tiles import product_tile
from nnbackend.backends.numba.simd import calling_address

__all__ = [
    "forward",
    "forward_panels",
    "input_gradient",
    "product_address",
    "product_callback",
    "weight_gradient",
]

#: Of a product, all integers; see `make_product`.
_ARGUMENTS = 15


def product_address(tile_shape):
    """Address of the compiled product of a `TileShape`, which is valid as long as the process lives."""
    return compiled_product(tile_shape).address


@functools.cache
def compiled_product(tile_shape):
    callback = product_callback(tile_shape)
    ahead.wait_for(lambda: is_on_disk(callback))
    return compiled(callback)


@functools.cache
def product_callback(tile_shape):
    """The product before it is compiled."""
    function = make_product(tile_shape)
    # The name tells the files on disk apart.
    function.__qualname__ = tile_shape.function_name("product")
    return callback_of(function, types.void(*[types.intp] * _ARGUMENTS))


@intrinsic
def call_product(
    context,
    product,
    record,
    a,
    a_row,
    a_k,
    b,
    b_row,
    b_jump,
    transpose,
    bias,
    out,
    out_row,
    rows,
    columns,
    inner,
    partial,
):
    """Call the product at an address."""
    return calling_address(_ARGUMENTS)


def part_of_caller(function):
    """As written, and compiled as a part of its caller, which saves a compilation."""
    jitted = as_written(function)
    jitted.targetoptions["inline"] = "always"
    return jitted


@part_of_caller
def forward(product, x, x_row, weight, weight_row, bias, out, out_row, rows, columns, inner):
    """``out = x @ weight + bias``; (rows, inner), (inner, columns) -> (rows, columns). A bias of 0 is none."""
    call_product(product, 0, x, x_row, 1, weight, weight_row, 0, 0, bias, out, out_row, rows, columns, inner, 0)


@part_of_caller
def forward_panels(product, width, x, x_row, panels, weight_rows, bias, out, out_row, rows, columns, inner):
    """As `forward`, with a weight that was copied into panels as wide as a tile, each of `weight_rows` rows."""
    call_product(product, 0, x, x_row, 1, panels, width, weight_rows, 0, bias, out, out_row, rows, columns, inner, 0)


@part_of_caller
def input_gradient(product, delta, delta_row, weight, weight_row, out, out_row, rows, columns, inner):
    """``out = delta @ weight.T``; (rows, inner), (columns, inner) -> (rows, columns)."""
    call_product(product, 0, delta, delta_row, 1, weight, weight_row, 0, 1, 0, out, out_row, rows, columns, inner, 0)


@part_of_caller
def weight_gradient(product, partial, record, x, x_row, delta, delta_row, out, out_row, rows, columns, inner):
    """``out = x.T @ delta``; (inner, rows), (inner, columns) -> (rows, columns).

    If the epilogue of the product's tile shape is an update, the gradient is applied to the parameters at once;
    `record` is that of `updates.py`, otherwise 0. Then `out` holds unfinished sums at most. The product at the address
    `partial`, that of the same tile shape with the epilogue "store", computes them.
    """
    call_product(
        product, record, x, 1, x_row, delta, delta_row, 0, 0, 0, out, out_row, rows, columns, inner, partial,
    )  # fmt: skip


@part_of_caller
def packing_pays(tile_shape, a_row, a_k, b_jump, rows, columns):
    """Whether to copy the left matrix to strips.

    If k runs over rows of `a`, a tile would read a few elements from many cache lines and pages. Otherwise it reads a
    few rows, and a copy pays only for many panels; with the deeper panels that exist already, only if the rows would
    compete for the same lines of the L1 cache.
    """
    many = columns > (2 if a_k != 1 else 7) * tile_shape.columns
    return rows > tile_shape.rows and many and not (b_jump and a_row * tile_shape.size % 1024)


def make_product(tile_shape):
    """The function to compile: ``out = a @ b + bias``, or ``a @ b.T + bias``.

    ``a[i, k]`` lies ``i * a_row + k * a_k`` elements after `a`. If `b_jump` is not 0, `b` consists of panels already:
    a panel begins ``width * b_jump`` elements after the previous one. If `partial` is not 0, the product at that
    address adds up all panels but the last.
    """
    size, width, narrow, height = tile_shape.size, tile_shape.columns, tile_shape.narrow, tile_shape.rows

    def product(record, a, a_row, a_k, b, b_row, b_jump, transpose, bias, out, out_row, rows, columns, inner, partial):
        panel, panel_row = panel_space(tile_shape), width
        # A copy does not pay for what is read once or twice.
        in_place = b_jump or (rows <= height and not transpose)
        packed = packing_pays(tile_shape, a_row, a_k, b_jump, rows, columns)
        strips = strip_space(tile_shape)
        # Panels that exist already stay in the L2 cache, so that fewer sums are stored and loaded again.
        deepest = tile_shape.depth * (8 if b_jump and not packed else 1)
        for i in range(0, rows, tile_shape.block):
            end = min(i + tile_shape.block, rows)
            first = 0
            if partial and inner > tile_shape.depth:
                first = (inner - 1) // tile_shape.depth * tile_shape.depth
                call_product(
                    partial, 0, a + size * i * a_row, a_row, a_k, b, b_row, b_jump, transpose, bias,
                    out + size * i * out_row, out_row, end - i, columns, first, 0,
                )  # fmt: skip
            # At least once: an empty sum is stored as well.
            for k in range(first, max(inner, 1), deepest):
                depth = min(inner - k, deepest)
                block = a + size * (i * a_row + k * a_k)
                if packed and a_k == 1:
                    transpose_strips(tile_shape, block, a_row, strips, end - i, depth)
                elif packed:
                    copy_strips(tile_shape, block, a_k, strips, end - i, depth)
                j, panels = 0, 0
                while j < columns:
                    # As `TileShape.panel_starts` says.
                    left = columns - j
                    step = narrow if width < left <= width + tile_shape.lanes else width
                    next_j, next_k = (j + step, k) if step < left else (0, k + depth)
                    if transpose:
                        here, ahead = b + size * (j * b_row + k), b + size * (next_j * b_row + next_k)
                        transpose_panel(tile_shape, here, b_row, panel, left, depth, ahead)
                    else:
                        here = b + size * (k * b_row + (panels * width * b_jump if b_jump else j))
                        ahead = b + size * (next_k * b_row + next_j)
                        if in_place:
                            panel, panel_row = here, b_row
                        else:
                            copy_panel(tile_shape, here, b_row, panel, left, depth, ahead)
                    # Each panel continues the sums of the previous one. Storing and loading does not change them.
                    start, start_row = (out, out_row) if k else (bias, 0)
                    row = i
                    while row < end:
                        here, here_row, here_k = a + size * (row * a_row + k * a_k), a_row, a_k
                        if packed:
                            strip, place = divmod(row - i, height)
                            here = strips + size * (strip * tile_shape.strip + place)
                            here_row, here_k = 1, height
                        row += product_tile(
                            tile_shape, record, here, here_row, 0, 0, 0, 0, here_k, max(depth, 1), 0, panel, panel_row,
                            start + size * (row * start_row + j) if start else 0, start_row,
                            out + size * (row * out_row + j), out_row, end - row, min(left, step), depth,
                        )  # fmt: skip
                    j, panels = j + step, panels + 1

    return product
