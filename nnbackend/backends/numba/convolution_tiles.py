"""Tiles of the products in convolutions, one below the other, by a function that is compiled once."""

from __future__ import annotations

import functools

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnbackend.backends.numba.jit import compile_callback
from nnbackend.backends.numba.product_tiles import product_tile
from nnbackend.backends.numba.tile_shape import FLOAT32, FLOAT64

__all__ = ["call_tiles", "tiles_address"]

#: Of the function that computes tiles, all integers.
_ARGUMENTS = 18


@functools.cache
def _tiles(tile_shape):
    """Compiled once for each tile shape: one tile below the other, with the arguments of `product_tile`."""
    size = tile_shape.size

    def tiles(
        a, a_row, group, a_jump, out_jump, first, a_k, length, jump, panel, panel_row, start, start_row, out, out_row,
        rows, columns, inner,
    ):  # fmt: skip
        row = 0
        while row < rows:
            done = product_tile(
                tile_shape, 0, a, a_row, group, a_jump, out_jump, first, a_k, length, jump, panel, panel_row, start,
                start_row, out, out_row, rows - row, columns, inner,
            )  # fmt: skip
            row += done
            first += done
            while first >= group:
                first -= group
                a += size * a_jump
                out += size * out_jump
                if start and start_row:
                    start += size * out_jump

    tiles.__qualname__ = tile_shape.function_name("tiles")
    return compile_callback(tiles, types.void(*[types.intp] * _ARGUMENTS))


@intrinsic
def call_tiles(
    context, tiles, a, a_row, group, a_jump, out_jump, first, a_k, length, jump, panel, panel_row, start, start_row,
    out, out_row, rows, columns, inner,
):  # fmt: skip
    """Call the function at the address `tiles`."""

    def generate(target, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * _ARGUMENTS)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return target.get_dummy_value()

    return types.void(*[types.int64] * (1 + _ARGUMENTS)), generate


def tiles_address(call):
    """Address of the function for the type of a call's result."""
    return _tiles(FLOAT32 if call.out.itemsize == 4 else FLOAT64).address
