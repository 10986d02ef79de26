"""The transforms of Winograd's convolution, for jitted code: a vector of channels at a time, in registers.

A tile of 2x2 outputs of a 3x3 convolution sees 4x4 elements of the image. With ``A' [(G g G') * (B' d B)] A`` (Lavin
and Gray 2016, "Fast algorithms for convolutional neural networks") it takes 16 multiplications per channel and filter
where the sum takes 36. With a kernel of 5x5 elements these are 36 of 100. The gradients are the same product in the
other directions: the kernel's is ``G' [(A delta A') * (B' d B)] G``, and the image's is the sum over the tiles that see
an element of ``B [(G g G') * (A delta A')] B'``.

Each transform is ``matrix @ square @ matrix.T`` for the elements of a square that lie at regular distances. Addresses
are integers, steps are numbers of elements, and channels are contiguous.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from nnbackend.backends.numba.jit import compile_callback
from nnbackend.backends.numba.simd import INTEGER, Simd, Value, calling_address
from nnbackend.backends.numba.tile_shape import TileShape
from nnbackend.backends.numba.vectors import Vector, for_each, multiply_add

__all__ = ["call_transform", "compiled_transform"]

_Matrix = Sequence[Sequence[float]]


def _transposed(matrix: _Matrix) -> _Matrix:
    return list(zip(*matrix, strict=True))


#: B', G and A' by the rows of the kernel: interpolation at 0, 1, -1 and infinity, for 5 rows also at 2 and -1/2, with
#: which rounding errors are smaller than with 2 and -2.
_MATRICES: dict[int, tuple[_Matrix, _Matrix, _Matrix]] = {
    3: (
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    5: (
        (
            (1, 3 / 2, -2, -3 / 2, 1, 0),
            (0, -1, -5 / 2, -1 / 2, 1, 0),
            (0, 1, 1 / 2, -5 / 2, 1, 0),
            (0, -1 / 2, -1, 1 / 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 1, 3 / 2, -2, -3 / 2, 1),
        ),
        (
            (1, 0, 0, 0, 0),
            (-1 / 3, -1 / 3, -1 / 3, -1 / 3, -1 / 3),
            (1 / 3, -1 / 3, 1 / 3, -1 / 3, 1 / 3),
            (1 / 15, 2 / 15, 4 / 15, 8 / 15, 16 / 15),
            (-16 / 15, 8 / 15, -4 / 15, 2 / 15, -1 / 15),
            (0, 0, 0, 0, 1),
        ),
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -1 / 2, 1)),
    ),
}


def _combined(coefficients: Sequence[float], vectors: Sequence[Vector]) -> Vector:
    """The sum of products, those with 1 and -1 first."""
    terms = sorted(zip(coefficients, vectors, strict=True), key=lambda term: abs(term[0]) != 1)
    (factor, vector), *others = [term for term in terms if term[0] != 0]
    total = vector if factor == 1 else vector * factor
    for factor, vector in others:
        if abs(factor) == 1:
            total = total + vector if factor > 0 else total - vector
        else:
            total = multiply_add(vector, factor, total)
    return total


def _sandwich(matrix: _Matrix, square: Sequence[Sequence[Vector]]) -> list[list[Vector]]:
    """``matrix @ square @ matrix.T``"""
    for _ in range(2):
        columns = zip(*square, strict=True)
        square = [[_combined(row, column) for row in matrix] for column in columns]
    return [list(row) for row in square]


def _transform(matrix: _Matrix, cut: str, added: str, simd: Simd, arguments: Sequence[Value]) -> None:
    """Write the loops of a transform.

    If `cut` is "source", elements beyond the limits are 0 and not read; if it is "target", they are not written. The
    "bias" or the "target" is `added` to the results, or nothing.
    """
    builder = simd.builder
    source, rows, columns, step, target, out_rows, out_columns, out_step, bias, channels, count, *limits = arguments
    source, target, bias = (simd.pointer(address) for address in (source, target, bias))
    outputs, inputs = len(matrix), len(matrix[0])
    nothing = builder.alloca(simd.vector)
    builder.store(simd.zeros(), nothing, align=simd.size)
    nothing = builder.bitcast(nothing, simd.real.as_pointer())

    def offsets(side: int, row: Value, column: Value) -> list[list[Value]]:
        return [
            [builder.add(builder.mul(simd.integer(i), row), builder.mul(simd.integer(j), column)) for j in range(side)]
            for i in range(side)
        ]

    def lies_inside(i: int, j: int) -> Value:
        tests = []
        for number, (low, high) in ((i, limits[:2]), (j, limits[2:])):
            tests.append(builder.icmp_signed("<=", low, simd.integer(number)))
            tests.append(builder.icmp_signed(">", high, simd.integer(number)))
        return builder.and_(builder.and_(tests[0], tests[1]), builder.and_(tests[2], tests[3]))

    side = {"source": inputs, "target": outputs}.get(cut, 0)
    inside = [[lies_inside(i, j) for j in range(side)] for i in range(side)]
    sources, targets = offsets(inputs, rows, columns), offsets(outputs, out_rows, out_columns)

    def square(number: Value, _: list[Value]) -> list[Value]:
        first = simd.move(source, builder.mul(number, step))
        out = simd.move(target, builder.mul(number, out_step))

        def some_channels(place: Value, mask: Value | None, _: list[Vector]) -> list[Vector]:
            def element(i: int, j: int) -> Vector:
                pointer = simd.move(simd.move(first, sources[i][j]), place)
                if cut == "source":
                    pointer = builder.select(inside[i][j], pointer, nothing)
                return Vector(simd, simd.load(pointer, mask))

            results = _sandwich(matrix, [[element(i, j) for j in range(inputs)] for i in range(inputs)])
            if added == "bias":
                is_given = builder.icmp_signed("!=", builder.ptrtoint(bias, simd.integer(0).type), simd.integer(0))
                pointer = builder.select(is_given, simd.move(bias, place), nothing)
                start = Vector(simd, simd.load(pointer, mask))
                results = [[result + start for result in row] for row in results]
            for i in range(outputs):
                for j in range(outputs):
                    pointer = simd.move(simd.move(out, targets[i][j]), place)
                    with builder.if_then(inside[i][j]) if cut == "target" else contextlib.nullcontext():
                        result = results[i][j]
                        if added == "target":
                            result = result + Vector(simd, simd.load(pointer, mask))
                        simd.store(result.value, pointer, mask)
            return []

        for_each(simd, channels, [], some_channels)
        return []

    simd.repeat(simd.integer(0), count, 1, [], square)


#: Of a transform, all integers; see `call_transform`.
_ARGUMENTS = 15


def _transforms(rows: int) -> dict[str, tuple[_Matrix, str, str]]:
    """The transforms for kernels of this many rows: matrix, which side may be cut, and what is added."""
    image, kernel, product = _MATRICES[rows]
    return {
        "image": (image, "source", ""),
        "image gradient": (_transposed(image), "target", "target"),
        "delta": (_transposed(product), "source", ""),
        "product": (product, "target", "bias"),
        "kernel": (kernel, "", ""),
        "weight gradient": (_transposed(kernel), "", ""),
    }


def _writing(shape: TileShape, rows: int, name: str) -> Any:
    """An intrinsic with the arguments of a transform."""
    matrix, cut, added = _transforms(rows)[name]
    side = {"source": len(matrix[0]), "target": len(matrix)}.get(cut, 0)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[Value]) -> Value:
        simd = Simd.of(shape, builder)
        low_row, high_row, low_column, high_column = arguments[-4:]
        tests = [builder.icmp_signed(">", low, simd.integer(0)) for low in (low_row, low_column)]
        tests += [builder.icmp_signed("<", high, simd.integer(side)) for high in (high_row, high_column)]
        is_cut = builder.or_(builder.or_(tests[0], tests[1]), builder.or_(tests[2], tests[3]))
        functions = []
        for kind in ("", cut):
            full_name = shape.function_name("winograd", rows, name.replace(" ", "_"), kind)
            functions.append(simd.function(full_name, _ARGUMENTS, partial(_transform, matrix, kind, added)))
        simd.call_one(builder.zext(is_cut, INTEGER), functions, arguments)
        return context.get_dummy_value()

    @intrinsic
    def write(
        context, source, rows, columns, step, target, out_rows, out_columns, out_step, bias, channels, count, low_row,
        high_row, low_column, high_column,
    ):  # fmt: skip
        return types.void(*[types.intp] * _ARGUMENTS), generate

    return write


@functools.cache
def compiled_transform(shape: TileShape, rows: int, name: str) -> Any:
    """A compiled transform for kernels with this many rows, 3 or 5.

    With the sizes of squares for 3 rows: "image": ``B' d B``, 4x4 elements of an image to 4x4. "image gradient": ``B m
    B'``, 4x4 to 4x4, which are added to what is there. "delta": ``A delta A'``, 2x2 to 4x4. "product": ``A' m A +
    bias``, 4x4 to 2x2. "kernel": ``G g G'``, 3x3 to 4x4. "weight gradient": ``G' s G``, 4x4 to 3x3.
    """
    write = _writing(shape, rows, name)

    def transform(
        source, rows, columns, step, target, out_rows, out_columns, out_step, bias, channels, count, low_row, high_row,
        low_column, high_column,
    ):  # fmt: skip
        write(
            source, rows, columns, step, target, out_rows, out_columns, out_step, bias, channels, count, low_row,
            high_row, low_column, high_column,
        )  # fmt: skip

    # The name tells the files on disk apart.
    transform.__qualname__ = shape.function_name("transform", rows, name)
    return compile_callback(transform, types.void(*[types.intp] * _ARGUMENTS))


@intrinsic
def call_transform(
    context, transform, source, rows, columns, step, target, out_rows, out_columns, out_step, bias, channels, count,
    low_row, high_row, low_column, high_column,
):  # fmt: skip
    """Transform `count` squares with the function at an address.

    Parameters
    ----------
    transform : int
    source, target : int
        Addresses of the first element of the first square, before and after.
    rows, columns, step, out_rows, out_columns, out_step : int
        Elements from one row of a square to the next, from one column to the next, and from one square to the next.
    bias : int
        Address of what is added to products, by channel, or 0.
    channels, count : int
    low_row, high_row, low_column, high_column : int
        The range of elements that exist in a square of an image, of `delta` or of the outputs; the same for all
        squares. Others count as 0, and are neither read nor written. Nothing is cut off kernels.
    """
    return calling_address(_ARGUMENTS)
