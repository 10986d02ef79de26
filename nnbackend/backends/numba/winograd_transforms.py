"""The transforms of Winograd's convolution, for jitted code: a vector of channels at a time, in registers.

A tile of 2x2 outputs of a 3x3 convolution sees 4x4 elements of the image. With ``A' [(G g G') * (B' d B)] A`` (Lavin
and Gray 2016, "Fast algorithms for convolutional neural networks") it takes 16 multiplications per channel and filter
where the sum takes 36. The gradients are the same product in the other directions: the kernel's is ``G' [(A delta A')
* (B' d B)] G``, and the image's is the convolution of `delta` with the kernel turned round.

Each transform is ``matrix @ square @ matrix.T`` for the elements of a square that lie at regular distances. Addresses
are integers, steps are numbers of elements, and channels are contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from nnbackend.backends.numba.simd import INTEGER, Simd, Value
from nnbackend.backends.numba.vectors import Vector, for_each

__all__ = ["DELTA", "IMAGE", "KERNEL", "PRODUCT", "WEIGHT_GRADIENT", "transform"]

_IMAGE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_PRODUCT = ((1, 1, 1, 0), (0, 1, -1, -1))

_Matrix = Sequence[Sequence[float]]


def _transposed(matrix: _Matrix) -> _Matrix:
    return list(zip(*matrix, strict=True))


def _combined(coefficients: Sequence[float], vectors: Sequence[Vector]) -> Vector:
    """The sum of some vectors, those with a factor of 1/2 first, which share one multiplication."""
    total: Vector | None = None
    for half in (True, False):
        for factor, vector in zip(coefficients, vectors, strict=True):
            if factor == 0 or (abs(factor) == 0.5) != half:
                continue
            if total is None:
                total = vector if factor > 0 else -vector
            else:
                total = total + vector if factor > 0 else total - vector
        if half and total is not None:
            total = total * 0.5
    assert total is not None
    return total


def _sandwich(matrix: _Matrix, square: Sequence[Sequence[Vector]]) -> list[list[Vector]]:
    """``matrix @ square @ matrix.T``"""
    for _ in range(2):
        columns = zip(*square, strict=True)
        square = [[_combined(row, column) for row in matrix] for column in columns]
    return [list(row) for row in square]


def _transform(matrix: _Matrix, cut: str, has_bias: bool, simd: Simd, arguments: Sequence[Value]) -> None:
    """Transforms `count` squares. If `cut` is "source", elements beyond the limits are 0 and not read; if it is
    "target", they are not written."""
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
            if has_bias:
                is_given = builder.icmp_signed("!=", builder.ptrtoint(bias, simd.integer(0).type), simd.integer(0))
                pointer = builder.select(is_given, simd.move(bias, place), nothing)
                start = Vector(simd, simd.load(pointer, mask))
                results = [[result + start for result in row] for row in results]
            for i in range(outputs):
                for j in range(outputs):
                    pointer = simd.move(simd.move(out, targets[i][j]), place)
                    if cut == "target":
                        with builder.if_then(inside[i][j]):
                            simd.store(results[i][j].value, pointer, mask)
                    else:
                        simd.store(results[i][j].value, pointer, mask)
            return []

        for_each(simd, channels, [], some_channels)
        return []

    simd.repeat(simd.integer(0), count, 1, [], square)


#: Arguments of `_transform`.
_ARGUMENTS = 15

#: The transforms by number: their name, matrix, and which side may be cut.
IMAGE, DELTA, PRODUCT, KERNEL, WEIGHT_GRADIENT = range(5)
_TRANSFORMS: tuple[tuple[str, _Matrix, str], ...] = (
    ("image", _IMAGE, "source"),
    ("delta", _transposed(_PRODUCT), "source"),
    ("product", _PRODUCT, "target"),
    ("kernel", _KERNEL, ""),
    ("weight_gradient", _transposed(_KERNEL), ""),
)


@intrinsic
def transform(
    context, tile_shape, kind, source, rows, columns, step, target, out_rows, out_columns, out_step, bias, channels,
    count, low_row, high_row, low_column, high_column,
):  # fmt: skip
    """Transform `count` squares.

    Parameters
    ----------
    tile_shape : TileShape
    kind : int
        ``IMAGE``: ``B' d B``, 4x4 elements of an image to 4x4. ``DELTA``: ``A delta A'``, 2x2 to 4x4. ``PRODUCT``:
        ``A' m A + bias``, 4x4 to 2x2. ``KERNEL``: ``G g G'``, 3x3 to 4x4. ``WEIGHT_GRADIENT``: ``G' s G``, 4x4 to 3x3.
    source, target : int
        Addresses of the first element of the first square, before and after.
    rows, columns, step, out_rows, out_columns, out_step : int
        Elements from one row of a square to the next, from one column to the next, and from one square to the next.
    bias : int
        Address of what is added to products, by channel, or 0.
    channels, count : int
    low_row, high_row, low_column, high_column : int
        The range of elements that exist in a square of an image, of `delta` or of the outputs; the same for all
        squares. Others count as 0, and are neither read nor written.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[Value]) -> Value:
        shape = tile_shape.tile_shape
        simd = Simd.of(shape, builder)
        low_row, high_row, low_column, high_column = arguments[-4:]
        side = simd.integer(2)
        side = builder.select(builder.icmp_signed("==", arguments[1], simd.integer(IMAGE)), simd.integer(4), side)
        tests = [builder.icmp_signed(">", low, simd.integer(0)) for low in (low_row, low_column)]
        tests += [builder.icmp_signed("<", high, side) for high in (high_row, high_column)]
        is_cut = builder.or_(builder.or_(tests[0], tests[1]), builder.or_(tests[2], tests[3]))
        functions = []
        for name, matrix, cut in _TRANSFORMS:
            for kind in ("", cut):
                write = partial(_transform, matrix, kind, name == "product")
                full_name = shape.function_name("winograd", name, kind)
                functions.append(simd.function(full_name, _ARGUMENTS, write))
        number = builder.add(builder.mul(arguments[1], simd.integer(2)), builder.zext(is_cut, INTEGER))
        simd.call_one(number, functions, arguments[2:])
        return context.get_dummy_value()

    return types.void(tile_shape, *[types.intp] * (1 + _ARGUMENTS)), generate
