"""Matrix products of dense layers on one thread, for use by jitted functions.

A matrix is given as the address of its first element and the distance between its rows in elements, which is at least
the number of columns. Sizes are 1 or more, `inner` may be 0, and addresses need only be aligned as elements are. The
result must not overlap the operands. The first argument, a `TileShape`, stands for the type and the CPU.

**A part of a result has the bits of the whole.** Each element is the sum over k in order, of fused multiply-adds where
the CPU has them, starting from the bias or from 0. A caller may therefore compute any range of rows or columns by
moving the addresses, and threads may share a product in any way.

NaN and infinity propagate as IEEE 754 says: an operand of 0 does not hide them.
"""

from __future__ import annotations

import numpy as np

from nnbackend.backends.numba.jit import as_written
from nnbackend.backends.numba.packing import (
    copy_panel,
    copy_strips,
    panel_space,
    strip_space,
    transpose_panel,
    transpose_strips,
)
from nnbackend.backends.numba.product_tiles import product_tile

__all__ = ["forward", "input_gradient", "weight_gradient"]


def part_of_caller(function):
    """As written, and compiled as a part of its caller, which saves a compilation."""
    jitted = as_written(function)
    jitted.targetoptions["inline"] = "always"
    return jitted


@part_of_caller
def forward(tile_shape, x, x_row, weight, weight_row, bias, out, out_row, rows, columns, inner):
    """``out = x @ weight + bias``; (rows, inner), (inner, columns) -> (rows, columns). A bias of 0 is none."""
    # NumPy's numbers here and below: to Numba each literal of Python is a type of its own, for which it would compile
    # `product` again.
    one, no = np.intp(1), np.bool_(False)
    product(
        tile_shape, np.intp(0), x, x_row, one, weight, weight_row, no, np.intp(bias), out, out_row, rows, columns, inner
    )


@part_of_caller
def input_gradient(tile_shape, delta, delta_row, weight, weight_row, out, out_row, rows, columns, inner):
    """``out = delta @ weight.T``; (rows, inner), (columns, inner) -> (rows, columns)."""
    one, none, yes = np.intp(1), np.intp(0), np.bool_(True)
    product(tile_shape, none, delta, delta_row, one, weight, weight_row, yes, none, out, out_row, rows, columns, inner)


@part_of_caller
def weight_gradient(tile_shape, record, x, x_row, delta, delta_row, out, out_row, rows, columns, inner):
    """``out = x.T @ delta``; (inner, rows), (inner, columns) -> (rows, columns).

    If the tile shape's epilogue is an update, the gradient is applied to the parameters at once; `record` is that of
    `updates.py`, otherwise 0. Then `out` holds unfinished sums at most.
    """
    one, none, no = np.intp(1), np.intp(0), np.bool_(False)
    product(
        tile_shape, np.intp(record), x, one, x_row, delta, delta_row, no, none, out, out_row,
        rows, columns, inner,
    )  # fmt: skip


@as_written
def product(tile_shape, record, a, a_row, a_k, b, b_row, transpose, bias, out, out_row, rows, columns, inner):
    """``out = a @ b + bias``, or ``a @ b.T + bias``; ``a[i, k]`` lies ``i * a_row + k * a_k`` elements after `a`."""
    size = tile_shape.size
    panel, panel_row = panel_space(tile_shape), tile_shape.columns
    # A copy does not pay for what is read once or twice.
    in_place = rows <= tile_shape.rows and not transpose
    # If k runs over rows of `a`, a tile would read a few elements from many cache lines and pages. Otherwise it reads a
    # few rows, and a copy pays only for many panels.
    few = 2 if a_k != 1 else 7
    packed = rows > tile_shape.rows and columns > few * tile_shape.columns
    strips = strip_space(tile_shape)
    for i in range(0, rows, tile_shape.block):
        end = min(i + tile_shape.block, rows)
        # At least once: an empty sum is stored as well.
        for k in range(0, max(inner, 1), tile_shape.depth):
            depth = min(inner - k, tile_shape.depth)
            finished = 1 if k + depth >= inner else 0
            block = a + size * (i * a_row + k * a_k)
            if packed and a_k == 1:
                transpose_strips(tile_shape, block, a_row, strips, end - i, depth)
            elif packed:
                copy_strips(tile_shape, block, a_k, strips, end - i, depth)
            for j in range(0, columns, tile_shape.columns):
                next_j, next_k = (j + tile_shape.columns, k) if j + tile_shape.columns < columns else (0, k + depth)
                if transpose:
                    here, ahead = b + size * (j * b_row + k), b + size * (next_j * b_row + next_k)
                    transpose_panel(tile_shape, here, b_row, panel, columns - j, depth, ahead)
                else:
                    here, ahead = b + size * (k * b_row + j), b + size * (next_k * b_row + next_j)
                    if in_place:
                        panel, panel_row = here, b_row
                    else:
                        copy_panel(tile_shape, here, b_row, panel, columns - j, depth, ahead)
                # Each panel continues the sums of the previous one. Storing and loading does not change them.
                start, start_row = (out, out_row) if k else (bias, 0)
                row = i
                while row < end:
                    left, left_row, left_k = a + size * (row * a_row + k * a_k), a_row, a_k
                    if packed:
                        strip, place = divmod(row - i, tile_shape.rows)
                        left, left_row, left_k = strips + size * (strip * tile_shape.strip + place), 1, tile_shape.rows
                    row += product_tile(
                        tile_shape,
                        finished,
                        record,
                        left,
                        left_row,
                        left_k,
                        panel,
                        panel_row,
                        start + size * (row * start_row + j) if start else 0,
                        start_row,
                        out + size * (row * out_row + j),
                        out_row,
                        end - row,
                        columns - j,
                        depth,
                    )
