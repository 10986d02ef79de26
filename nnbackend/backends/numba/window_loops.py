"""Loops over the windows of a row of an image, for jitted code: a vector of channels at a time, in registers.

Addresses are integers, steps are numbers of elements, and channels are contiguous. The first argument, a `TileShape`,
stands for the type and the CPU. All windows must lie within the image; callers cut those at its borders. Sums are in
the order of the elements of a window. Small sizes that are common have loops of their own, without counters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from nnbackend.backends.image_operations import POOLS
from nnbackend.backends.numba.simd import Simd, Value
from nnbackend.backends.numba.vectors import Vector, for_each, where

__all__ = ["MOST_COLUMNS", "convolve_channels", "gradient_of_windows", "pool_windows", "sum_products"]

#: Sizes (rows, columns) of windows with loops of their own: of pools, and of depthwise convolutions.
_POOL_SIZES = ((2, 2),)
_KERNEL_SIZES = ((3, 3),)

#: Neighbouring positions of a depthwise convolution that are computed with one vector of the kernel in a register.
_TOGETHER = 4

#: Columns of a kernel whose gradients are summed at once.
MOST_COLUMNS = 5

_Extent = tuple[Any, Any]


def _repeat(
    simd: Simd, length: Any, values: list[Value], body: Callable[[Value, list[Value]], list[Value]]
) -> list[Value]:
    """``for i in range(length): values = body(i, values)``, unrolled if the length is known."""
    if isinstance(length, int):
        for i in range(length):
            values = body(simd.integer(i), values)
        return values
    return simd.repeat(simd.integer(0), length, 1, values, body)


def _over(
    simd: Simd,
    extent: _Extent,
    steps: tuple[Value, Value],
    values: list[Vector],
    body: Callable[[Value, list[Vector]], list[Vector]],
) -> list[Vector]:
    """``values = body(offset, values)`` for every element of a window, unrolled if the extent is known."""
    builder = simd.builder

    def in_row(row: Value, carried: list[Value]) -> list[Value]:
        def element(column: Value, inner: list[Value]) -> list[Value]:
            offset = builder.add(builder.mul(row, steps[0]), builder.mul(column, steps[1]))
            return [vector.value for vector in body(offset, [Vector(simd, value) for value in inner])]

        return _repeat(simd, extent[1], carried, element)

    return [Vector(simd, value) for value in _repeat(simd, extent[0], [vector.value for vector in values], in_row)]


def _by_size(
    sizes: Sequence[tuple[int, int]], arguments: int, name: str, write: Callable[[Simd, _Extent, Any], None]
) -> Any:
    """An intrinsic whose first integers are the rows and columns of a window, with a function for each of the sizes."""

    def function_for(size: tuple[int, int] | None, simd: Simd, values: Sequence[Value]) -> None:
        write(simd, size or (values[0], values[1]), values[2:])

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[Value]) -> Value:
        shape = signature.args[0].tile_shape
        simd = Simd.of(shape, builder)
        functions, number = [], simd.integer(0)
        for place, size in enumerate((None, *sizes)):
            suffix = "x".join(str(length) for length in size or ("any",))
            full_name = shape.function_name(name, suffix)
            functions.append(simd.function(full_name, arguments, partial(function_for, size)))
            if size:
                same = [builder.icmp_signed("==", values[1 + axis], simd.integer(size[axis])) for axis in (0, 1)]
                number = builder.select(builder.and_(*same), simd.integer(place), number)
        simd.call_one(number, functions, values[1:])
        return context.get_dummy_value()

    return lambda tile_shape: (types.void(tile_shape, *[types.intp] * arguments), generate)


# ---- pools -----------------------------------------------------------------------------------------------------------


def _is_nan(vector: Vector) -> Value:
    return vector.simd.builder.fcmp_unordered("uno", vector.value, vector.value)


def _elements(simd: Simd, extent: _Extent) -> Vector:
    """The number of elements of a window, in every lane."""
    count = simd.integer(1)
    for length in extent:
        count = simd.builder.mul(count, simd.integer(length) if isinstance(length, int) else length)
    return Vector(simd, simd.splat(simd.builder.sitofp(count, simd.real)))


def _pool(kind: str, simd: Simd, extent: _Extent, arguments: Sequence[Value]) -> None:
    builder = simd.builder
    x, step, x_row, channels, out, count = arguments
    x, out = simd.pointer(x), simd.pointer(out)

    def some_channels(place: Value, mask: Value | None, _: list[Vector]) -> list[Vector]:
        def window(number: Value, _: list[Value]) -> list[Value]:
            corner = simd.move(x, builder.add(builder.mul(number, step), place))

            def element(offset: Value, values: list[Vector]) -> list[Vector]:
                found = Vector(simd, simd.load(simd.move(corner, offset), mask))
                if kind == "max":
                    # A NaN is kept, and replaces what is not one.
                    return [where(builder.or_(found > values[0], _is_nan(found)), found, values[0])]
                return [values[0] + (found if kind == "average" else found * found)]

            start = simd.load(corner, mask) if kind == "max" else simd.zeros()
            (result,) = _over(simd, extent, (x_row, channels), [Vector(simd, start)], element)
            if kind == "average":
                result = result / _elements(simd, extent)
            elif kind == "l2":
                result = result.root()
            target = simd.move(out, builder.add(builder.mul(number, channels), place))
            simd.store(result.value, target, mask)
            return []

        simd.repeat(simd.integer(0), count, 1, [], window)
        return []

    for_each(simd, channels, [], some_channels)


def _pool_gradient(kind: str, simd: Simd, extent: _Extent, arguments: Sequence[Value]) -> None:
    builder = simd.builder
    x, step, x_row, channels, pooled, upstream, out, count = arguments
    x, pooled, upstream, out = (simd.pointer(address) for address in (x, pooled, upstream, out))

    def some_channels(place: Value, mask: Value | None, _: list[Vector]) -> list[Vector]:
        def window(number: Value, _: list[Value]) -> list[Value]:
            corner = builder.add(builder.mul(number, step), place)
            source = builder.add(builder.mul(number, channels), place)
            result = Vector(simd, simd.load(simd.move(pooled, source), mask))
            above = Vector(simd, simd.load(simd.move(upstream, source), mask))
            if kind == "average":
                above = above / _elements(simd, extent)
            elif kind == "l2":
                # 0 where the result is 0; elsewhere, NaN included, divided by it.
                is_zero = builder.fcmp_ordered("==", result.value, simd.zeros())
                above = where(is_zero, 0.0, above / where(is_zero, 1.0, result))

            def element(offset: Value, values: list[Vector]) -> list[Vector]:
                at = builder.add(corner, offset)
                target = simd.move(out, at)
                before = Vector(simd, simd.load(target, mask))
                if kind == "average":
                    gradient, left = above, []
                else:
                    found = Vector(simd, simd.load(simd.move(x, at), mask))
                    if kind == "max":
                        # The first that is equal, or NaN, receives all.
                        same = builder.fcmp_ordered("==", found.value, result.value)
                        chosen = builder.or_(same, _is_nan(found))
                        gradient, left = where(chosen, values[0], 0.0), [where(chosen, 0.0, values[0])]
                    else:
                        gradient, left = above * found, []
                simd.store((before + gradient).value, target, mask)
                return left

            _over(simd, extent, (x_row, channels), [above] if kind == "max" else [], element)
            return []

        simd.repeat(simd.integer(0), count, 1, [], window)
        return []

    for_each(simd, channels, [], some_channels)


def _of_kind(name: str, arguments: int, write: Callable[..., None]) -> Any:
    """An intrinsic that takes the number of a kind of pool, the rows and columns of a window, and more integers."""
    # The kinds are written one by one, since a function is generated for each.
    written = [_by_size(_POOL_SIZES, arguments, f"{name}_{kind}", partial(write, kind)) for kind in POOLS]

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[Value]) -> Value:
        tile_shape, number, *rest = values
        inner = signature.return_type(signature.args[0], *signature.args[2:])
        after = builder.append_basic_block("after")
        switch = builder.switch(number, after)
        for case, of_size in enumerate(written):
            block = builder.append_basic_block("case")
            switch.add_case(case, block)
            builder.position_at_end(block)
            of_size(signature.args[0])[1](context, builder, inner, [tile_shape, *rest])
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return lambda tile_shape: (types.void(tile_shape, *[types.intp] * (1 + arguments)), generate)


@intrinsic
def pool_windows(context, tile_shape, kind, rows, columns, x, step, x_row, channels, out, count):
    """The pools of `count` windows of `rows` x `columns` elements, whose first elements are `step` apart."""
    return _of_kind("pool", 8, _pool)(tile_shape)


@intrinsic
def gradient_of_windows(
    context, tile_shape, kind, rows, columns, x, step, x_row, channels, pooled, upstream, out, count
):
    """Add the gradients of the elements of such windows to `out`, which is laid out as `x`."""
    return _of_kind("pool_gradient", 10, _pool_gradient)(tile_shape)


# ---- depthwise convolutions ------------------------------------------------------------------------------------------


def _convolve(simd: Simd, extent: _Extent, arguments: Sequence[Value]) -> None:
    builder = simd.builder
    x, step, x_row, x_column, weight, weight_row, weight_step, bias, channels, out, count = arguments
    x, weight, out = (simd.pointer(address) for address in (x, weight, out))
    has_bias = builder.icmp_signed("!=", bias, simd.integer(0))
    rest = builder.srem(count, simd.integer(_TOGETHER))
    whole = builder.sub(count, rest)

    def some_channels(place: Value, mask: Value | None, _: list[Vector]) -> list[Vector]:
        def load_bias() -> list[Value]:
            return [simd.load(simd.move(simd.pointer(bias), place), mask)]

        (start,) = simd.only_if(has_bias, load_bias, [simd.zeros()])

        def windows(together: int, number: Value, _: list[Value]) -> list[Value]:
            numbers = [builder.add(number, simd.integer(i)) for i in range(together)]
            corners = [simd.move(x, builder.add(builder.mul(each, step), place)) for each in numbers]

            def row(i: Value, sums: list[Value]) -> list[Value]:
                def element(j: Value, sums: list[Value]) -> list[Value]:
                    at = builder.add(builder.mul(i, weight_row), builder.mul(j, weight_step))
                    factor = simd.load(simd.move(weight, builder.add(at, place)), mask)
                    offset = builder.add(builder.mul(i, x_row), builder.mul(j, x_column))
                    found = [simd.load(simd.move(corner, offset), mask) for corner in corners]
                    return [simd.multiply_add(each, factor, total) for each, total in zip(found, sums, strict=True)]

                return _repeat(simd, extent[1], sums, element)

            sums = _repeat(simd, extent[0], [start] * together, row)
            for each, total in zip(numbers, sums, strict=True):
                simd.store(total, simd.move(out, builder.add(builder.mul(each, channels), place)), mask)
            return []

        simd.repeat(simd.integer(0), whole, _TOGETHER, [], partial(windows, _TOGETHER))
        simd.repeat(whole, count, 1, [], partial(windows, 1))
        return []

    for_each(simd, channels, [], some_channels)


@intrinsic
def convolve_channels(
    context, tile_shape, rows, columns, x, step, x_row, x_column, weight, weight_row, weight_step, bias, channels, out,
    count,
):  # fmt: skip
    """Convolve each channel with its kernel of `rows` x `columns` elements, for `count` windows whose first elements
    are `step` apart. Steps in the kernel may be negative. `bias` may be 0."""
    return _by_size(_KERNEL_SIZES, 13, "convolve_channels", _convolve)(tile_shape)


def _sum_products(columns: int, simd: Simd, arguments: Sequence[Value]) -> None:
    builder = simd.builder
    x, step, x_column, delta, delta_step, begin, end, out, out_step, count = arguments
    x, delta, out = (simd.pointer(address) for address in (x, delta, out))

    def some_channels(place: Value, mask: Value | None, _: list[Vector]) -> list[Vector]:
        place = builder.add(begin, place)
        offsets = [builder.add(builder.mul(simd.integer(j), x_column), place) for j in range(columns)]
        targets = [simd.move(out, builder.add(builder.mul(simd.integer(j), out_step), place)) for j in range(columns)]

        def position(number: Value, sums: list[Value]) -> list[Value]:
            upstream = simd.load(simd.move(delta, builder.add(builder.mul(number, delta_step), place)), mask)
            corner = simd.move(x, builder.mul(number, step))
            return [
                simd.multiply_add(simd.load(simd.move(corner, offset), mask), upstream, total)
                for offset, total in zip(offsets, sums, strict=True)
            ]

        before = [simd.load(target, mask) for target in targets]
        for total, target in zip(simd.repeat(simd.integer(0), count, 1, before, position), targets, strict=True):
            simd.store(total, target, mask)
        return []

    for_each(simd, builder.sub(end, begin), [], some_channels)


@intrinsic
def sum_products(context, tile_shape, columns, x, step, x_column, delta, delta_step, begin, end, out, out_step, count):
    """``out[j, c] += sum(x[p * step + j * x_column + c] * delta[p * delta_step + c])`` over `count` positions p, for
    `columns` columns j of a kernel, at most `MOST_COLUMNS`, and channels c from `begin` to `end`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[Value]) -> Value:
        shape = signature.args[0].tile_shape
        simd = Simd.of(shape, builder)
        functions = [
            simd.function(shape.function_name("sum_products", str(count)), 10, partial(_sum_products, count))
            for count in range(1, MOST_COLUMNS + 1)
        ]
        simd.call_one(builder.sub(values[1], simd.integer(1)), functions, values[2:])
        return context.get_dummy_value()

    return types.void(tile_shape, *[types.intp] * 11), generate
