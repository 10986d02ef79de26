"""Matrix products of dense layers on one thread, made of tiles: jitted functions to be used by jitted functions.

Matrices are given as the address of their first element and the distance between rows in elements, which is at least
the number of columns. Every size from 1 up will do, `inner` may be 0, and an address need only be one that an element
may have. The result must not overlap the operands. The first argument says which type and which CPU: a `Tiling`, such
as ``tiling.FLOAT32``.

**A range of a result has the bits of the whole.** Each element is the sum over k in order, of fused multiply-adds where
the CPU has them, beginning with the bias or with 0. So a caller may have any range of rows or columns computed, by
moving the addresses, and threads may share out a product as they like.

NaN and infinity go where IEEE 754 says: they are not hidden by an operand of 0.
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
from nnbackend.backends.numba.tiles import product_tile

__all__ = ["forward", "input_gradient", "weight_gradient"]


def part_of_caller(function):
    """As written, too, but not compiled until its caller is, and along with it: one compilation less."""
    jitted = as_written(function)
    jitted.targetoptions["inline"] = "always"
    return jitted


@part_of_caller
def forward(tiling, x, x_row, weight, weight_row, bias, out, out_row, rows, columns, inner):
    """``out = x @ weight + bias``; (rows, inner), (inner, columns) -> (rows, columns). A bias of 0 is none."""
    # NumPy's numbers here and below: to Numba each of Python's, if written out, is a type of its own, and `product`
    # would be compiled anew for it.
    one, no = np.intp(1), np.bool_(False)
    product(
        tiling, np.intp(0), x, x_row, one, weight, weight_row, no, np.intp(bias), out, out_row, rows, columns, inner
    )


@part_of_caller
def input_gradient(tiling, delta, delta_row, weight, weight_row, out, out_row, rows, columns, inner):
    """``out = delta @ weight.T``; (rows, inner), (columns, inner) -> (rows, columns)."""
    one, none, yes = np.intp(1), np.intp(0), np.bool_(True)
    product(tiling, none, delta, delta_row, one, weight, weight_row, yes, none, out, out_row, rows, columns, inner)


@part_of_caller
def weight_gradient(tiling, record, x, x_row, delta, delta_row, out, out_row, rows, columns, inner):
    """``out = x.T @ delta``; (inner, rows), (inner, columns) -> (rows, columns).

    Or it is taken to the parameters at once, if the tiling has an epilogue for it; `record` is that of `updates.py`,
    else 0. Then `out` is used for sums that are not finished, if at all.
    """
    one, none, no = np.intp(1), np.intp(0), np.bool_(False)
    product(
        tiling, np.intp(record), x, one, x_row, delta, delta_row, no, none, out, out_row,
        rows, columns, inner,
    )  # fmt: skip


@as_written
def product(tiling, record, a, a_row, a_k, b, b_row, transpose, bias, out, out_row, rows, columns, inner):
    """``out = a @ b + bias``, or ``a @ b.T + bias``; ``a[i, k]`` lies ``i * a_row + k * a_k`` elements after `a`."""
    size = tiling.size
    panel, panel_row = panel_space(tiling), tiling.columns
    # What would be read once or twice is not worth a copy.
    in_place = rows <= tiling.rows and not transpose
    # A tile whose k are rows of `a` would read a few elements here and there of many lines and pages. Else it reads a
    # few rows, which is worth a copy only for many panels.
    few = 2 if a_k != 1 else 7
    packed = rows > tiling.rows and columns > few * tiling.columns
    strips = strip_space(tiling)
    for i in range(0, rows, tiling.block):
        end = min(i + tiling.block, rows)
        # Once even where there is nothing to sum.
        for k in range(0, max(inner, 1), tiling.depth):
            depth = min(inner - k, tiling.depth)
            finished = 1 if k + depth >= inner else 0
            block = a + size * (i * a_row + k * a_k)
            if packed and a_k == 1:
                transpose_strips(tiling, block, a_row, strips, end - i, depth)
            elif packed:
                copy_strips(tiling, block, a_k, strips, end - i, depth)
            for j in range(0, columns, tiling.columns):
                next_j, next_k = (j + tiling.columns, k) if j + tiling.columns < columns else (0, k + depth)
                if transpose:
                    here, ahead = b + size * (j * b_row + k), b + size * (next_j * b_row + next_k)
                    transpose_panel(tiling, here, b_row, panel, columns - j, depth, ahead)
                else:
                    here, ahead = b + size * (k * b_row + j), b + size * (next_k * b_row + next_j)
                    if in_place:
                        panel, panel_row = here, b_row
                    else:
                        copy_panel(tiling, here, b_row, panel, columns - j, depth, ahead)
                # A panel goes on with the sums of the one before. Stored and loaded again, they are what they were.
                start, start_row = (out, out_row) if k else (bias, 0)
                row = i
                while row < end:
                    left, left_row, left_k = a + size * (row * a_row + k * a_k), a_row, a_k
                    if packed:
                        strip, place = divmod(row - i, tiling.rows)
                        left, left_row, left_k = strips + size * (strip * tiling.strip + place), 1, tiling.rows
                    row += product_tile(
                        tiling,
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
