"""Tiles: the innermost loops of the matrix products, each of which computes a small block of the result in registers.

A tile of ``rows x vectors`` sums reads ``rows + vectors`` operands for ``rows * vectors`` multiply-adds, so loads are
not the bottleneck. The right matrix is first copied into *panels*, as wide as a tile and short enough to stay in the L1
cache while many rows of the left matrix are multiplied with them (Goto and van de Geijn 2008, "Anatomy of
high-performance matrix multiplication"; Van Zee and van de Geijn 2015, "BLIS"). The left matrix is read in place,
or from *strips*: as many rows as a tile has, stored column after column.

Nothing outside the matrices is read or written. Columns that do not fill a vector are masked; if they fill half of one
at most, two rows share it. Where rows do not fill a tile, the last row is computed several times and stored once. Each
element is computed in the same way wherever it is in a tile, so dividing a product into ranges does not change a bit.

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
    group,
    a_jump,
    out_jump,
    first,
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

    Element ``a[i, k]`` lies ``r // group * a_jump + r % group * a_row + k // length * jump + k % length * a_k``
    elements after `a`, where ``r = first + i``, so that the same code multiplies by a matrix, by its transpose and by
    the windows of an image or their transpose.

    Parameters
    ----------
    tile_shape : TileShape
    record : int
        Address of the epilogue's record, if it has one.
    a, start, out : int
        Addresses of the first elements that the tile needs, but for `first`. If `start` is 0 the sums start from 0.
    panel : int
        Address of the panel, or of the right matrix itself.
    a_row, a_k, panel_row, start_row, out_row : int
        Strides, in elements. A `start_row` of 0 starts all rows from the same bias. `start` may be `out`, to
        continue its sums.
    group : int
        Number of rows with the same distances `a_row`, `start_row` and `out_row`; 0 for all.
    a_jump, out_jump : int
        Elements from the first row of a group to that of the next, in `a`, and in `out` and `start`.
    first : int
        Number of the tile's first row in its group.
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

    return types.intp(tile_shape, *[types.intp] * 19), write


def _write_product(tile_shape: TileShape, builder: ir.IRBuilder, arguments: Sequence[Value]) -> Value:
    """Choose among tiles of many and of few rows, and of full width or of 1, 2, ... vectors with the last masked.

    If the last of 3 vectors or more is at most half full, pairs of rows share it. Tiles with fewer sums gain nothing.
    """
    simd = Simd.of(tile_shape, builder)
    rows, columns = arguments[-3:-1]
    vectors, lanes = tile_shape.vectors, tile_shape.lanes
    widths = [(vectors, False, False), *((n + 1, True, False) for n in range(vectors))]
    paired = [(n + 1, True, True) for n in range(2, vectors)] if tile_shape.paired and tile_shape.rows % 2 == 0 else []
    many = builder.icmp_signed(">", rows, simd.integer(tile_shape.rows // 2))
    fits = builder.icmp_signed(">=", columns, simd.integer(tile_shape.columns))
    needed = builder.sdiv(builder.add(columns, simd.integer(lanes - 1)), simd.integer(lanes))
    width = builder.select(fits, simd.integer(0), needed)
    spare = builder.sub(builder.mul(needed, simd.integer(lanes)), columns)
    if paired:
        is_paired = builder.and_(
            builder.icmp_signed(">=", spare, simd.integer(lanes // 2)),
            builder.icmp_signed(">", needed, simd.integer(2)),
        )
        is_paired = builder.and_(is_paired, builder.and_(many, builder.not_(fits)))
        width = builder.select(is_paired, builder.add(needed, simd.integer(vectors - 2)), width)
    shapes = [(tile_shape.rows, *width) for width in (*widths, *paired)] + [(_FEW, *width) for width in widths]
    functions = []
    for shape in shapes:
        write = partial(_product, EPILOGUES[tile_shape.epilogue], tile_shape, *shape)
        functions.append(simd.function(tile_shape.function_name("product_tile", *shape), 19, write))
    height = builder.select(many, simd.integer(0), simd.integer(len(widths) + len(paired)))
    simd.call_one(builder.add(height, width), functions, arguments)
    return builder.select(many, simd.integer(tile_shape.rows), simd.integer(_FEW))


class _Sums:
    """The sums of a tile: whole vectors, row after row, then those of pairs of rows, if pairs share the last vector."""

    def __init__(self, simd: Simd, height: int, vectors: int, masked: bool, paired: bool, columns: Value) -> None:
        self._simd, self._height = simd, height
        self.offsets = [simd.integer(j * simd.lanes) for j in range(vectors)]
        self._masks: list[Value | None] = [None] * vectors
        if masked:
            self._masks[-1] = simd.first(simd.builder.sub(columns, self.offsets[-1]))
        self._whole, self._pairs = (vectors - 1, range(0, height, 2)) if paired else (vectors, range(0))
        # A constant mask would become a permutation, which takes longer than a blend.
        self._lower = simd.first(simd.opaque(simd.lanes // 2)) if paired else None

    def zeros(self) -> list[Value]:
        return [self._simd.zeros()] * (self._height * self._whole + len(self._pairs))

    def load_row(self, pointer: Value) -> list[Value]:
        """The vectors of a row of a matrix."""
        simd = self._simd
        return [
            simd.load(simd.move(pointer, offset), mask) for offset, mask in zip(self.offsets, self._masks, strict=True)
        ]

    def load(self, rows: Sequence[Value]) -> list[Value]:
        """Sums to continue, from pointers to rows."""
        found = [self.load_row(row) for row in rows]
        together = [self._simd.lower_halves(found[i][-1], found[i + 1][-1]) for i in self._pairs]
        return [vector for row in found for vector in row[: self._whole]] + together

    def add(self, sums: Sequence[Value], a: Callable[[int], Value], b: Sequence[Value]) -> list[Value]:
        """Add the products of elements of a column, ``a(i)`` in every lane, and a row `b`."""
        simd, whole = self._simd, self._whole
        twice = [simd.lower_halves(vector, vector) for vector in b[whole:]]
        results, shared, before = [], [], None
        for i in range(self._height):
            factor = a(i)
            results += [simd.multiply_add(factor, b[j], sums[i * whole + j]) for j in range(whole)]
            if twice and i % 2:
                both = simd.builder.select(self._lower, before, factor)
                shared.append(simd.multiply_add(both, twice[0], sums[self._height * whole + i // 2]))
            before = factor
        return results + shared

    def finish(self, sums: Sequence[Value], epilogue: Epilogue, number: int, row: Value) -> None:
        """Pass a row of sums to the epilogue."""
        whole, vectors = self._whole, [*sums[number * self._whole : (number + 1) * self._whole]]
        if self._pairs:
            both = sums[self._height * whole + number // 2]
            vectors.append(self._simd.upper_half(both) if number % 2 else both)
        for vector, offset, mask in zip(vectors, self.offsets, self._masks, strict=True):
            epilogue(vector, self._simd.move(row, offset), mask)


def _product(
    begin_epilogue: Callable[[Simd, Value], Epilogue],
    tile_shape: TileShape,
    height: int,
    vectors: int,
    masked: bool,
    paired: bool,
    simd: Simd,
    arguments: Sequence[Value],
) -> None:
    """The tile of `product_tile`."""
    builder = simd.builder
    record, a, a_row, group, a_jump, out_jump, first, a_k, length, jump, panel, panel_row, *others = arguments
    start, start_row, out, out_row, rows, columns, inner = others
    has_start = builder.icmp_signed("!=", start, simd.integer(0))
    a, panel, start, out = (simd.pointer(address) for address in (a, panel, start, out))
    tile = _Sums(simd, height, vectors, masked, paired, columns)
    a_rows = _grouped_rows(simd, a, a_row, group, a_jump, first, rows, height)
    out_rows = _grouped_rows(simd, out, out_row, group, out_jump, first, rows, height)
    epilogue = begin_epilogue(simd, record)

    def load_start() -> list[Value]:
        # A bias has one row for all.
        start_jump = builder.select(builder.icmp_signed("==", start_row, simd.integer(0)), start_row, out_jump)
        return tile.load(_grouped_rows(simd, start, start_row, group, start_jump, first, rows, height))

    sums = simd.only_if(has_start, load_start, tile.zeros())
    share = builder.sdiv(builder.add(length, simd.integer(height - 1)), simd.integer(height))

    reads_rows = builder.icmp_signed("==", a_k, simd.integer(1))
    next_tile = builder.mul(a_row, simd.integer(height))

    def segment(number: Value, sums: list[Value]) -> list[Value]:
        rows_here = [simd.move(row, builder.mul(number, jump)) for row in a_rows]
        panel_here = simd.move(panel, builder.mul(builder.mul(number, length), panel_row))

        def step(k: Value, sums: list[Value]) -> list[Value]:
            b_k = tile.load_row(simd.move(panel_here, builder.mul(k, panel_row)))
            return tile.add(sums, lambda i: simd.load_splat(simd.move(rows_here[i], builder.mul(k, a_k))), b_k)

        def steps_of_a_row(row: Value, carried: list[Value]) -> list[Value]:
            # Prefetch one output row at a time, so that it is in cache when the sums are finished. Fetching all rows at
            # once would delay the loads of the sums.
            k, *sums = carried
            with builder.if_then(reads_rows):
                # The rows of the next tile come from memory while this one is computed.
                for pointer in rows_here:
                    simd.prefetch(simd.move(pointer, builder.add(k, next_tile)), [simd.integer(0)], write=False)
            for place in epilogue.places(simd.move(out, builder.mul(row, out_row))):
                simd.prefetch(place, tile.offsets, write=True)
            end = simd.smaller(builder.add(k, share), length)
            return [end, *simd.repeat(k, end, 1, sums, step)]

        _, *sums = simd.repeat(simd.integer(0), simd.integer(height), 1, [simd.integer(0), *sums], steps_of_a_row)
        return sums

    sums = simd.repeat(simd.integer(0), builder.sdiv(inner, length), 1, sums, segment)
    for i, row in enumerate(out_rows):
        with builder.if_then(builder.icmp_signed("<", simd.integer(i), rows)):
            tile.finish(sums, epilogue, i, row)


def _grouped_rows(
    simd: Simd, a: Value, a_row: Value, group: Value, jump: Value, first: Value, present: Value, height: int
) -> list[Value]:
    """Pointers to the rows of a tile. Rows beyond the last are replaced by the last, which is safe to read."""
    builder = simd.builder
    pointer, pointers = simd.move(a, builder.mul(first, a_row)), []
    for i in range(1, height + 1):
        pointers.append(pointer)
        first = builder.add(first, simd.integer(1))
        wraps = builder.icmp_signed("==", first, group)
        first = builder.select(wraps, simd.integer(0), first)
        a = builder.select(wraps, simd.move(a, jump), a)
        following = builder.select(wraps, a, simd.move(pointer, a_row))
        pointer = builder.select(builder.icmp_signed("<", simd.integer(i), present), following, pointer)
    return pointers
