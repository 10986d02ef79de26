"""What all convolutions have in common: the names of their arrays, and tiles of products, one below the other, by a
function that is compiled once."""

from __future__ import annotations

import functools

from numba import types
from numba.extending import intrinsic

from nnbackend.backends.numba.jit import compile_callback
from nnbackend.backends.numba.product_tiles import product_tile
from nnbackend.backends.numba.simd import calling_address
from nnbackend.backends.numba.tile_shape import shape_for

__all__ = ["call_tiles", "image_of", "kernel_of", "maps_of", "tiles_address"]

#: Of the function that computes tiles, all integers.
_ARGUMENTS = 18


def kernel_of(call):
    """The kernel of a convolution, or its gradient."""
    return call.arguments.get("weight", call.out)


def image_of(call):
    """The image, or its gradient."""
    return call.arguments.get("x", call.out)


def maps_of(call):
    """The output, or its gradient."""
    return call.arguments.get("delta", call.out)


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
    return calling_address(_ARGUMENTS)


def tiles_address(call):
    """Address of the function for the type of a call's result."""
    return _tiles(shape_for(call.out.dtype)).address
