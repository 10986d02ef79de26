"""Copies the operands of a product into the order in which its tiles read them: panels and strips.

A *panel* is a part of the right matrix, as wide as a tile and a few rows deep. A *strip* is a part of the left matrix,
as high as a tile, stored column after column. Nothing outside the matrices is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from nnbackend.backends.numba.simd import INTEGER, Simd, Value, calling
from nnbackend.backends.numba.tile_shape import TileShape

__all__ = ["copy_panel", "copy_strips", "panel_space", "strip_space", "transpose_panel", "transpose_strips"]


@intrinsic
def panel_space(context, tile_shape):
    """The address of memory for a panel on the stack of the calling function."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[Value]) -> Value:
        return _space(tile_shape.tile_shape, builder, tile_shape.tile_shape.depth * tile_shape.tile_shape.columns)

    return types.intp(tile_shape), write


@intrinsic
def strip_space(context, tile_shape):
    """The address of memory for the strips of a block, as in `panel_space`."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[Value]) -> Value:
        return _space(tile_shape.tile_shape, builder, tile_shape.tile_shape.strips * tile_shape.tile_shape.strip)

    return types.intp(tile_shape), write


def _space(tile_shape: TileShape, builder: ir.IRBuilder, elements: int) -> Value:
    space = cgutils.alloca_once(builder, Simd.of(tile_shape, builder).real, size=elements)
    space.align = 64
    return builder.ptrtoint(space, INTEGER)


@intrinsic
def copy_panel(context, tile_shape, b, b_row, panel, columns, inner, ahead):
    """``panel[k, j] = b[k, j]`` for `inner` rows and the width of a tile. `b` has `columns` columns from here on.

    The panel at `ahead`, which is copied next, is prefetched while this one is multiplied.
    """

    def write(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[Value]) -> Value:
        shape, simd = tile_shape.tile_shape, Simd.of(tile_shape.tile_shape, builder)
        fits = builder.icmp_signed(">=", arguments[4], simd.integer(shape.columns))
        functions = [
            simd.function(shape.function_name("copy_panel", masked), 6, partial(_copy_panel, shape, masked))
            for masked in (False, True)
        ]
        simd.call_one(builder.select(fits, simd.integer(0), simd.integer(1)), functions, arguments[1:])
        return context.get_dummy_value()

    return types.void(tile_shape, *[types.intp] * 6), write


@intrinsic
def transpose_panel(context, tile_shape, b, b_row, panel, columns, inner, ahead):
    """``panel[k, j] = b[j, k]``, as in `copy_panel`: `b` has `columns` rows from here on."""
    return calling(tile_shape, "transpose_panel", 6, partial(_transpose_panel, tile_shape.tile_shape))


@intrinsic
def copy_strips(context, tile_shape, a, a_k, strips, rows, inner):
    """``strips[i // height][k, i % height] = a[i, k]`` for the `rows` of a block and `inner` columns, where `height` is
    that of a tile. The columns of `a` are contiguous, and begin `a_k` elements apart."""
    return calling(tile_shape, "copy_strips", 5, partial(_copy_strips, tile_shape.tile_shape))


@intrinsic
def transpose_strips(context, tile_shape, a, a_row, strips, rows, inner):
    """The same for an `a` with contiguous rows that begin `a_row` elements apart."""
    return calling(tile_shape, "transpose_strips", 5, partial(_transpose_strips, tile_shape.tile_shape))


def _copy_panel(tile_shape: TileShape, masked: bool, simd: Simd, arguments: Sequence[Value]) -> None:
    builder = simd.builder
    b, b_row, panel, columns, inner, ahead = arguments
    b, panel, ahead = (simd.pointer(address) for address in (b, panel, ahead))
    offsets = [simd.integer(j * simd.lanes) for j in range(tile_shape.vectors)]
    masks = [simd.first(builder.sub(columns, offset)) if masked else None for offset in offsets]

    def row(k: Value, _: list[Value]) -> list[Value]:
        source = simd.move(b, builder.mul(k, b_row))
        target = simd.move(panel, builder.mul(k, simd.integer(tile_shape.columns)))
        simd.prefetch(simd.move(ahead, builder.mul(k, b_row)), offsets, write=False)
        for offset, mask in zip(offsets, masks, strict=True):
            simd.store(simd.load(simd.move(source, offset), mask), simd.move(target, offset))
        return []

    simd.repeat(simd.integer(0), inner, 1, [], row)


def _copy_strips(tile_shape: TileShape, simd: Simd, arguments: Sequence[Value]) -> None:
    # A vector is one column of a strip.
    simd = Simd(simd.builder, tile_shape.real, tile_shape.rows, tile_shape.fused)
    builder, height = simd.builder, simd.integer(tile_shape.rows)
    a, a_k, strips, rows, inner = arguments
    a, strips = simd.pointer(a), simd.pointer(strips)
    rest = builder.srem(rows, height)
    whole = builder.sub(rows, rest)

    def column(k: Value, _: list[Value]) -> list[Value]:
        source, target = simd.move(a, builder.mul(k, a_k)), simd.move(strips, builder.mul(k, height))

        def piece(row: Value, place: list[Value], mask: Value | None = None) -> list[Value]:
            simd.store(simd.load(simd.move(source, row), mask), simd.move(target, place[0]))
            return [builder.add(place[0], simd.integer(tile_shape.strip))]

        place = simd.repeat(simd.integer(0), whole, tile_shape.rows, [simd.integer(0)], piece)
        has_rest = builder.icmp_signed("!=", rest, simd.integer(0))
        simd.only_if(has_rest, lambda: piece(whole, place, simd.first(rest)), place)
        return []

    simd.repeat(simd.integer(0), inner, 1, [], column)


def _transpose_panel(tile_shape: TileShape, simd: Simd, arguments: Sequence[Value]) -> None:
    """Copy a few rows of `b` at a time, up to the end of the last vector that a tile reads. The last row of `b` is
    repeated at the end, because old contents of the panel could be subnormal numbers, which are very slow."""
    builder = simd.builder
    b, b_row, panel, columns, inner, ahead = arguments
    b, panel, ahead = (simd.pointer(address) for address in (b, panel, ahead))
    lanes, side = simd.integer(simd.lanes), min(simd.lanes, 4)
    width = builder.add(columns, simd.integer(simd.lanes - 1))
    width = simd.smaller(builder.sub(width, builder.srem(width, lanes)), simd.integer(tile_shape.columns))

    def some_rows(j: Value, _: list[Value]) -> list[Value]:
        numbers = [builder.add(j, simd.integer(i)) for i in range(side)]
        rows = simd.rows(b, b_row, numbers, columns)
        rows_ahead = [simd.move(ahead, builder.mul(number, b_row)) for number in numbers]
        _transpose_rows(simd, rows, rows_ahead, inner, simd.move(panel, j), tile_shape.columns)
        return []

    simd.repeat(simd.integer(0), width, side, [], some_rows)


def _transpose_strips(tile_shape: TileShape, simd: Simd, arguments: Sequence[Value]) -> None:
    builder = simd.builder
    a, a_row, strips, rows, inner = arguments
    a, strips = simd.pointer(a), simd.pointer(strips)

    def strip(row: Value, place: list[Value]) -> list[Value]:
        numbers = [builder.add(row, simd.integer(i)) for i in range(tile_shape.rows)]
        starts, out = simd.rows(a, a_row, numbers, rows), simd.move(strips, place[0])
        # At most as many rows at once as a vector has lanes.
        for i in range(0, tile_shape.rows, simd.lanes):
            _transpose_rows(
                simd, starts[i : i + simd.lanes], [], inner, simd.move(out, simd.integer(i)), tile_shape.rows
            )
        return [builder.add(place[0], simd.integer(tile_shape.strip))]

    simd.repeat(simd.integer(0), rows, tile_shape.rows, [simd.integer(0)], strip)


def _transpose_rows(simd: Simd, rows: list[Value], ahead: list[Value], inner: Value, out: Value, out_row: int) -> None:
    """``out[k * out_row + i] = rows[i][k]``, also for k from `inner` to the next multiple of the lanes, so `out` must
    be large enough. Prefetches the rows `ahead`."""
    builder = simd.builder
    rest = builder.srem(inner, simd.integer(simd.lanes))
    whole = builder.sub(inner, rest)

    def vector(k: Value, _: list[Value], mask: Value | None = None) -> list[Value]:
        for row in ahead:
            simd.prefetch(row, [k], write=False)
        for i, column in enumerate(simd.transposed([simd.load(simd.move(row, k), mask) for row in rows])):
            place = builder.mul(builder.add(k, simd.integer(i)), simd.integer(out_row))
            simd.store(column, simd.move(out, place))
        return []

    simd.repeat(simd.integer(0), whole, simd.lanes, [], vector)
    has_rest = builder.icmp_signed("!=", rest, simd.integer(0))
    simd.only_if(has_rest, lambda: vector(whole, [], simd.first(rest)), [])
