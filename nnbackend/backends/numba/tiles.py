"""Tiles: the innermost loops of the matrix products, each computing a small block of the result in registers.

A tile of ``rows x vectors`` sums reads ``rows + vectors`` operands for ``rows * vectors`` multiply-adds, so that reading
does not hold up computing. The right operand is copied into a *panel* first, as wide as a tile and of limited depth, that
stays in the first cache while all rows of the left one pass by (Goto and van de Geijn 2008, "Anatomy of high-performance
matrix multiplication"; Van Zee and van de Geijn 2015, "BLIS"). The left operand is read where it lies.

Nothing outside the matrices is read or written. Columns that do not fill a vector are masked. In place of rows that do
not fill a tile the last one is computed again, and not stored. Each element is computed in the same way wherever it is in
a tile, so cutting a product into ranges does not change a bit.

Jitted code should call the functions of `tiled.py`, not these intrinsics: a function with fast-math flags lends them to
all that is written into it, and then LLVM would choose the order of the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from nnbackend.backends.numba.simd import INTEGER, Simd, Value
from nnbackend.backends.numba.tiling import FINGERPRINT, Tiling

__all__ = ["Epilogue", "copy_panel", "make_product_tile", "panel_space", "product_tile", "store", "transpose_panel"]

#: Rows of the smaller tiles that are used where few rows are left.
_FEW = 2

#: Writes the code that takes a finished vector of the result to its place: (simd, vector, pointer, mask).
Epilogue = Callable[[Simd, Value, Value, Value | None], None]


def store(simd: Simd, vector: Value, pointer: Value, mask: Value | None) -> None:
    simd.store(vector, pointer, mask)


def make_product_tile(epilogue: Epilogue) -> Any:
    """The intrinsic `product_tile`, with something else done to the finished vectors than storing them."""

    @intrinsic  # type: ignore[untyped-decorator]
    def product_tile(  # type: ignore[no-untyped-def]
        context, tiling, a, a_row, a_k, panel, start, start_row, out, out_row, rows, columns, inner
    ):
        """Compute one tile of ``out[i, j] = start[i, j] + sum over k of a[i, k] panel[k, j]``, in the order of k.

        Element ``a[i, k]`` lies ``i * a_row + k * a_k`` elements after `a`, so that a matrix and its transpose are both
        multiplied by the same code.

        Parameters
        ----------
        tiling : Tiling
        a, start, out : int
            Addresses of the first elements that the tile needs. If `start` is 0 the sums start from 0.
        panel : int
            Address of a panel.
        a_row, a_k, start_row, out_row : int
            Strides, in elements. 0 starts all rows from the same bias; `start` may be `out`, to go on with its sums.
        rows, columns : int
            What is left of the result from here on, at least 1. A tile takes as much of it as it has room for.
        inner : int
            Number of k.

        Returns
        -------
        int
            The rows that this tile has room for.
        """

        def write(_: Any, builder: ir.IRBuilder, __: Any, arguments: Sequence[Value]) -> Value:
            return _write_product(tiling.tiling, epilogue, builder, arguments[1:])

        return types.intp(tiling, *[types.intp] * 11), write

    return product_tile


product_tile = make_product_tile(store)


@intrinsic  # type: ignore[untyped-decorator]
def panel_space(context, tiling):  # type: ignore[no-untyped-def]
    """The address of a panel on the stack, the calling function's until it returns."""

    def write(_: Any, builder: ir.IRBuilder, __: Any, arguments: Sequence[Value]) -> Value:
        simd = _simd(tiling.tiling, builder)
        space = cgutils.alloca_once(builder, simd.real, size=tiling.tiling.depth * tiling.tiling.columns)
        space.align = 64
        return builder.ptrtoint(space, INTEGER)

    return types.intp(tiling), write


@intrinsic  # type: ignore[untyped-decorator]
def copy_panel(context, tiling, b, b_row, panel, columns, inner):  # type: ignore[no-untyped-def]
    """``panel[k, j] = b[k, j]``, and zeros in columns that `b` does not have."""

    def write(_: Any, builder: ir.IRBuilder, __: Any, arguments: Sequence[Value]) -> Value:
        simd, shape = _simd(tiling.tiling, builder), tiling.tiling
        fits = builder.icmp_signed(">=", arguments[-2], simd.integer(shape.columns))
        functions = [
            simd.function(_name("copy", shape, masked), 5, partial(_copy_kernel, shape, masked)) for masked in (0, 1)
        ]
        simd.call_one(builder.select(fits, simd.integer(0), simd.integer(1)), functions, arguments[1:])
        return simd.integer(0)

    return types.intp(tiling, *[types.intp] * 5), write


@intrinsic  # type: ignore[untyped-decorator]
def transpose_panel(context, tiling, b, b_row, panel, columns, inner):  # type: ignore[no-untyped-def]
    """``panel[k, j] = b[j, k]``, and anything in columns that ``b.T`` does not have."""

    def write(_: Any, builder: ir.IRBuilder, __: Any, arguments: Sequence[Value]) -> Value:
        simd, shape = _simd(tiling.tiling, builder), tiling.tiling
        function = simd.function(_name("transpose", shape), 5, partial(_transpose_kernel, shape))
        builder.call(function, arguments[1:])
        return simd.integer(0)

    return types.intp(tiling, *[types.intp] * 5), write


def _write_product(tiling: Tiling, epilogue: Epilogue, builder: ir.IRBuilder, arguments: Sequence[Value]) -> Value:
    """Choose among tiles of many and few rows, and of all vectors without a mask or of 1, 2... with the last masked."""
    simd = _simd(tiling, builder)
    rows, columns = arguments[-3:-1]
    many = builder.icmp_signed(">", rows, simd.integer(tiling.rows // 2))
    fits = builder.icmp_signed(">=", columns, simd.integer(tiling.columns))
    needed = builder.sdiv(builder.add(columns, simd.integer(tiling.lanes - 1)), simd.integer(tiling.lanes))
    case = builder.select(fits, simd.integer(0), needed)
    case = builder.add(case, builder.select(many, simd.integer(0), simd.integer(tiling.vectors + 1)))
    functions = []
    for height in (tiling.rows, _FEW):
        for vectors in range(tiling.vectors + 1):
            name = _name(f"product_{epilogue.__name__}", tiling, height, vectors)
            shape = (height, vectors or tiling.vectors, vectors > 0)
            functions.append(simd.function(name, 11, partial(_product_kernel, epilogue, tiling, *shape)))
    simd.call_one(case, functions, arguments)
    return builder.select(many, simd.integer(tiling.rows), simd.integer(_FEW))


def _product_kernel(
    epilogue: Epilogue, tiling: Tiling, height: int, vectors: int, masked: bool, simd: Simd, arguments: Sequence[Value]
) -> None:
    builder = simd.builder
    a, a_row, a_k, panel, start, start_row, out, out_row, rows, columns, inner = arguments
    a, panel, start, out = (simd.pointer(address) for address in (a, panel, start, out))
    starts = [simd.integer(j * simd.lanes) for j in range(vectors)]
    masks: list[Value | None] = [None] * vectors
    if masked:
        masks[-1] = simd.first(builder.sub(columns, starts[-1]))
    a_rows = simd.rows(a, a_row, height, rows)

    def step(k: Value, sums: list[Value]) -> list[Value]:
        panel_row = simd.move(panel, builder.mul(k, simd.integer(tiling.columns)))
        b_k = [simd.load(simd.move(panel_row, start)) for start in starts]
        results = []
        for i in range(height):
            a_ik = simd.load_splat(simd.move(a_rows[i], builder.mul(k, a_k)))
            results += [simd.multiply_add(a_ik, b_k[j], sums[i * vectors + j]) for j in range(vectors)]
        return results

    def load_start() -> list[Value]:
        start_rows = simd.rows(start, start_row, height, rows)
        return [simd.load(simd.move(row, starts[j]), masks[j]) for row in start_rows for j in range(vectors)]

    has_start = builder.icmp_signed("!=", arguments[4], simd.integer(0))
    sums = simd.only_if(has_start, load_start, [simd.zeros()] * (height * vectors))
    sums = simd.repeat(simd.integer(0), inner, 1, sums, step)
    for i in range(height):
        with builder.if_then(builder.icmp_signed("<", simd.integer(i), rows)):
            row = simd.move(out, builder.mul(simd.integer(i), out_row))
            for j in range(vectors):
                epilogue(simd, sums[i * vectors + j], simd.move(row, starts[j]), masks[j])


def _copy_kernel(tiling: Tiling, masked: int, simd: Simd, arguments: Sequence[Value]) -> None:
    builder = simd.builder
    b, b_row, panel, columns, inner = arguments
    b, panel = simd.pointer(b), simd.pointer(panel)
    starts = [simd.integer(j * simd.lanes) for j in range(tiling.vectors)]
    masks = [simd.first(builder.sub(columns, start)) if masked else None for start in starts]

    def step(k: Value, _: list[Value]) -> list[Value]:
        source = simd.move(b, builder.mul(k, b_row))
        target = simd.move(panel, builder.mul(k, simd.integer(tiling.columns)))
        for start, mask in zip(starts, masks, strict=True):
            simd.store(simd.load(simd.move(source, start), mask), simd.move(target, start))
        return []

    simd.repeat(simd.integer(0), inner, 1, [], step)


def _transpose_kernel(tiling: Tiling, simd: Simd, arguments: Sequence[Value]) -> None:
    """A few rows of `b` at a time; squares as large as a vector would be no faster and take long to compile."""
    builder = simd.builder
    b, b_row, panel, columns, inner = arguments
    b, panel = simd.pointer(b), simd.pointer(panel)
    width = simd.smaller(columns, simd.integer(tiling.columns))
    side = min(simd.lanes, 4)

    def some_rows(j: Value, _: list[Value]) -> list[Value]:
        rows = simd.rows(simd.move(b, builder.mul(j, b_row)), b_row, side, builder.sub(width, j))

        def one_vector(k: Value, _: list[Value]) -> list[Value]:
            mask = simd.first(simd.smaller(builder.sub(inner, k), simd.integer(simd.lanes)))
            pieces = simd.transposed([simd.load(simd.move(row, k), mask) for row in rows])
            for i, piece in enumerate(pieces):
                panel_row = builder.mul(builder.add(k, simd.integer(i)), simd.integer(tiling.columns))
                simd.store(piece, simd.move(simd.move(panel, panel_row), j))
            return []

        return simd.repeat(simd.integer(0), inner, simd.lanes, [], one_vector)

    simd.repeat(simd.integer(0), width, side, [], some_rows)


def _simd(tiling: Tiling, builder: ir.IRBuilder) -> Simd:
    return Simd(builder, tiling.real, tiling.lanes, tiling.fused)


def _name(kind: str, tiling: Tiling, *shape: int) -> str:
    """What is written differently is named differently: of functions with the same name LLVM keeps one."""
    return "_".join(str(part) for part in ("nnbackend", kind, *vars(tiling).values(), *shape, FINGERPRINT))
