"""Tiles: the innermost loops of the matrix products, each of which computes a small block of the result in registers.

A tile of ``rows x vectors`` sums reads ``rows + vectors`` operands for ``rows * vectors`` multiply-adds, so loads are
not the bottleneck. The right matrix is first copied into *panels*, as wide as a tile and short enough to stay in the L1
cache while many rows of the left matrix are multiplied with them (Goto and van de Geijn 2008, "Anatomy of
high-performance matrix multiplication"; Van Zee and van de Geijn 2015, "BLIS"). The left matrix is read in place,
or from *strips*: as many rows as a tile has, stored column after column.

Nothing outside the matrices is read or written. Columns that do not fill a vector are masked. Where rows do not fill a
tile, the last row is computed several times and stored once. Each element is computed in the same way wherever it is in
a tile, so dividing a product into ranges does not change a bit.

Jitted code should call the functions of `dense_products.py`, not these intrinsics: the fast-math flags of a function
apply to the code written into it, and LLVM would then choose the order of the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from nnbackend.backends.numba.epilogues import EPILOGUES, Epilogue
from nnbackend.backends.numba.simd import Simd, Value
from nnbackend.backends.numba.tile_shape import TileShape

__all__ = ["product_tile"]

#: Rows of the smaller tiles that are used where few rows are left. One row would be no faster: see `TileShape.choose`.
_FEW = 2


@intrinsic
def product_tile(
    context,
    tile_shape,
    record,
    a,
    a_row,
    a_k,
    length,
    jump,
    panel,
    panel_row,
    start,
    start_row,
    out,
    out_row,
    rows,
    columns,
    inner,
):
    """Compute one tile of ``out[i, j] = start[i, j] + sum over k of a[i, k] panel[k, j]``, in the order of k, and pass
    the sums to the tile shape's epilogue.

    Element ``a[i, k]`` lies ``i * a_row + k // length * jump + k % length * a_k`` elements after `a`, so that the same
    code multiplies by a matrix, by its transpose and by the windows of an image.

    Parameters
    ----------
    tile_shape : TileShape
    record : int
        Address of the epilogue's record, if it has one.
    a, start, out : int
        Addresses of the first elements that the tile needs. If `start` is 0 the sums start from 0.
    panel : int
        Address of the panel, or of the right matrix itself.
    a_row, a_k, panel_row, start_row, out_row : int
        Strides, in elements. A `start_row` of 0 starts all rows from the same bias. `start` may be `out`, to
        continue its sums.
    length : int
        Number of k with the same distance `a_k`, at least 1; `inner` is a multiple of it.
    rows, columns : int
        Rows and columns of the result from here to its end, at least 1. A tile computes as many as fit.
    inner : int
        Number of k.

    Returns
    -------
    int
        The number of rows that fit into this tile.
    """

    def write(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[Value]) -> Value:
        return _write_product(tile_shape.tile_shape, builder, arguments[1:])

    return types.intp(tile_shape, *[types.intp] * 15), write


def _write_product(tile_shape: TileShape, builder: ir.IRBuilder, arguments: Sequence[Value]) -> Value:
    """Choose among tiles of many and of few rows, and of full width or of 1, 2, ... vectors with the last masked."""
    simd = Simd.of(tile_shape, builder)
    rows, columns = arguments[-3:-1]
    many = builder.icmp_signed(">", rows, simd.integer(tile_shape.rows // 2))
    fits = builder.icmp_signed(">=", columns, simd.integer(tile_shape.columns))
    needed = builder.sdiv(builder.add(columns, simd.integer(tile_shape.lanes - 1)), simd.integer(tile_shape.lanes))
    widths = [(tile_shape.vectors, False), *((n + 1, True) for n in range(tile_shape.vectors))]
    width = builder.select(fits, simd.integer(0), needed)
    height = builder.select(many, simd.integer(0), simd.integer(len(widths)))
    functions = []
    for many_or_few in (tile_shape.rows, _FEW):
        for vectors, masked in widths:
            name = tile_shape.function_name("product_tile", many_or_few, vectors, masked)
            write = partial(_product, EPILOGUES[tile_shape.epilogue], tile_shape, many_or_few, vectors, masked)
            functions.append(simd.function(name, 15, write))
    simd.call_one(builder.add(height, width), functions, arguments)
    return builder.select(many, simd.integer(tile_shape.rows), simd.integer(_FEW))


def _product(
    begin_epilogue: Callable[[Simd, Value], Epilogue],
    tile_shape: TileShape,
    height: int,
    vectors: int,
    masked: bool,
    simd: Simd,
    arguments: Sequence[Value],
) -> None:
    """The tile of `product_tile`. Sums are in a list, row after row."""
    builder = simd.builder
    record, a, a_row, a_k, length, jump, panel, panel_row, start, start_row, out, out_row, rows, columns, inner = (
        arguments
    )
    has_start = builder.icmp_signed("!=", start, simd.integer(0))
    a, panel, start, out = (simd.pointer(address) for address in (a, panel, start, out))
    row_numbers = [simd.integer(i) for i in range(height)]
    offsets = [simd.integer(j * simd.lanes) for j in range(vectors)]
    masks: list[Value | None] = [None] * vectors
    if masked:
        masks[-1] = simd.first(builder.sub(columns, offsets[-1]))

    def load_start() -> list[Value]:
        start_rows = simd.rows(start, start_row, row_numbers, rows)
        return [simd.load(simd.move(row, offsets[j]), masks[j]) for row in start_rows for j in range(vectors)]

    a_rows = simd.rows(a, a_row, row_numbers, rows)
    out_rows = [simd.move(out, builder.mul(number, out_row)) for number in row_numbers]
    epilogue = begin_epilogue(simd, record)

    sums = simd.only_if(has_start, load_start, [simd.zeros()] * (height * vectors))
    share = builder.sdiv(builder.add(length, simd.integer(height - 1)), simd.integer(height))

    def segment(number: Value, sums: list[Value]) -> list[Value]:
        rows_here = [simd.move(row, builder.mul(number, jump)) for row in a_rows]
        panel_here = simd.move(panel, builder.mul(builder.mul(number, length), panel_row))

        def step(k: Value, sums: list[Value]) -> list[Value]:
            row = simd.move(panel_here, builder.mul(k, panel_row))
            b_k = [simd.load(simd.move(row, offset), mask) for offset, mask in zip(offsets, masks, strict=True)]
            results = []
            for i in range(height):
                a_ik = simd.load_splat(simd.move(rows_here[i], builder.mul(k, a_k)))
                results += [simd.multiply_add(a_ik, b_k[j], sums[i * vectors + j]) for j in range(vectors)]
            return results

        def steps_of_a_row(row: Value, carried: list[Value]) -> list[Value]:
            # Prefetch one output row at a time, so that it is in cache when the sums are finished. Fetching all rows at
            # once would delay the loads of the sums.
            k, *sums = carried
            for place in epilogue.places(simd.move(out, builder.mul(row, out_row))):
                simd.prefetch(place, offsets, write=True)
            end = simd.smaller(builder.add(k, share), length)
            return [end, *simd.repeat(k, end, 1, sums, step)]

        _, *sums = simd.repeat(simd.integer(0), simd.integer(height), 1, [simd.integer(0), *sums], steps_of_a_row)
        return sums

    sums = simd.repeat(simd.integer(0), builder.sdiv(inner, length), 1, sums, segment)
    for i, row in enumerate(out_rows):
        with builder.if_then(builder.icmp_signed("<", row_numbers[i], rows)):
            for j in range(vectors):
                epilogue(sums[i * vectors + j], simd.move(row, offsets[j]), masks[j])
