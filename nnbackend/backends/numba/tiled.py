"""Matrix products of dense layers on one thread, made of tiles; jitted, for use in other jitted functions.

Matrices are given as the address of their first element and the distance between rows in elements, which is at least the
number of columns. Every size from 1 up will do, and every address that an element may have. The result must not overlap
the operands.

**A range of a result has the bits of the whole.** Each element is the sum over k in order, of fused multiply-adds where the
CPU has them, beginning with the bias or with 0. A caller may have any range of rows and columns computed by moving the
addresses, and threads may share out a product as they like.

NaN and infinity go where IEEE 754 says; an operand of 0 does not hide them.

The first argument says which type and which CPU: ``tiling.FLOAT32`` or ``FLOAT64``.
"""

from __future__ import annotations

from functools import partial

from nnbackend.backends.numba.kernels import jit
from nnbackend.backends.numba.tiles import copy_panel, panel_space, product_tile, transpose_panel

__all__ = ["forward", "input_gradient", "weight_gradient"]

#: No fast-math flags: with them LLVM could sum in another order in one tile than in the next.
as_written = partial(jit, fastmath=())


@as_written
def forward(tiling, x, x_row, weight, weight_row, bias, out, out_row, rows, columns, inner):
    """``out = x @ weight + bias``; (rows, inner), (inner, columns) -> (rows, columns). A bias of 0 is none."""
    _product(tiling, x, x_row, 1, weight, weight_row, False, bias, out, out_row, rows, columns, inner)


@as_written
def input_gradient(tiling, delta, delta_row, weight, weight_row, out, out_row, rows, columns, inner):
    """``out = delta @ weight.T``; (rows, inner), (columns, inner) -> (rows, columns)."""
    _product(tiling, delta, delta_row, 1, weight, weight_row, True, 0, out, out_row, rows, columns, inner)


@as_written
def weight_gradient(tiling, x, x_row, delta, delta_row, out, out_row, rows, columns, inner):
    """``out = x.T @ delta``; (inner, rows), (inner, columns) -> (rows, columns)."""
    _product(tiling, x, 1, x_row, delta, delta_row, False, 0, out, out_row, rows, columns, inner)


@as_written
def _product(tiling, a, a_row, a_k, b, b_row, transpose, bias, out, out_row, rows, columns, inner):
    """``out = a @ b + bias``, or ``a @ b.T + bias``; ``a[i, k]`` lies ``i * a_row + k * a_k`` elements after `a`."""
    size = tiling.size
    panel = panel_space(tiling)
    for j in range(0, columns, tiling.columns):
        start, start_row = bias + size * j if bias else 0, 0
        # Once even if there is nothing to sum up.
        for k in range(0, max(inner, 1), tiling.depth):
            depth = min(inner - k, tiling.depth)
            if transpose:
                transpose_panel(tiling, b + size * (j * b_row + k), b_row, panel, columns - j, depth)
            else:
                copy_panel(tiling, b + size * (k * b_row + j), b_row, panel, columns - j, depth)
            a_k0, i = a + size * k * a_k, 0
            while i < rows:
                i += product_tile(
                    tiling,
                    a_k0 + size * i * a_row,
                    a_row,
                    a_k,
                    panel,
                    start + size * i * start_row,
                    start_row,
                    out + size * (i * out_row + j),
                    out_row,
                    rows - i,
                    columns - j,
                    depth,
                )
            # The next part of the sums goes on from here.
            start, start_row = out + size * j, out_row
