"""Loops over contiguous memory in whole vectors, for jitted code: activations, their derivatives, updates, exp.

Addresses are integers. The first argument, a `TileShape`, stands for the type and the CPU. Constants are given as the
address of float64 numbers. The result for an element does not depend on its position, so callers may divide the work in
any way without changing a bit.

A jitted function that calls one of these must be compiled `as_written`, because its fast-math flags apply to the code
written into it. With them LLVM would replace ``(x + 1) - 1`` by x, but the formulas depend on the rounding error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from nnbackend.backends.numba import functions
from nnbackend.backends.numba.activations import ELEMENTWISE, PIECEWISE_LINEAR, Elementwise, softplus
from nnbackend.backends.numba.simd import Simd, Value, calling
from nnbackend.backends.numba.updates import RULES, Rule, Updating
from nnbackend.backends.numba.vectors import Vector, for_each, load_constants, where

__all__ = [
    "activate", "add_run", "differentiate", "exponentials", "scale_bytes", "scale_row", "sigmoid_cross_entropy_row",
    "update", "update_vectors",
]  # fmt: skip


def _written(arguments: int, write_all: Callable[[Simd, Any], list[Value]]) -> Any:
    """An intrinsic that takes a code and integers, and calls the function with that code from `write_all`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[Value]) -> Value:
        tile_shape = signature.args[0].tile_shape
        simd = Simd.of(tile_shape, builder)
        simd.call_one(values[1], write_all(simd, tile_shape), values[2:])
        return context.get_dummy_value()

    return lambda tile_shape: (types.void(tile_shape, *[types.intp] * arguments), generate)


def _activation(forward: Callable[[Vector, Vector], Vector], simd: Simd, arguments: Sequence[Value]) -> None:
    constants, z, out, count = arguments
    (alpha,) = load_constants(simd, constants, 1)
    z, out = simd.pointer(z), simd.pointer(out)

    def body(place: Value, mask: Value | None, carried: list[Vector]) -> list[Vector]:
        result = forward(Vector(simd, simd.load(simd.move(z, place), mask)), alpha)
        simd.store(result.value, simd.move(out, place), mask)
        return []

    for_each(simd, count, [], body)


def _add(simd: Simd, arguments: Sequence[Value]) -> None:
    source, out, count = arguments
    source, out = simd.pointer(source), simd.pointer(out)

    def body(place: Value, mask: Value | None, carried: list[Vector]) -> list[Vector]:
        target = simd.move(out, place)
        total = simd.builder.fadd(simd.load(target, mask), simd.load(simd.move(source, place), mask))
        simd.store(total, target, mask)
        return []

    for_each(simd, count, [], body)


@intrinsic
def add_run(context, tile_shape, source, out, count):
    """``out += source`` for `count` elements."""
    return calling(tile_shape, "add_run", 3, _add)


def _compiled_activations(shape: Any) -> list[tuple[str, Elementwise]]:
    """The activations that a function with this tile shape can compute, with their names, in the order of their codes.

    They are those of `PIECEWISE_LINEAR` if its epilogue is "piecewise".
    """
    names = PIECEWISE_LINEAR if shape.epilogue == "piecewise" else tuple(ELEMENTWISE)
    return [(name, ELEMENTWISE[name]) for name in names]


@intrinsic
def activate(context, tile_shape, code, constants, z, out, count):
    """``out = activation(z)`` for `count` elements; `out` may be `z`. See `_compiled_activations`."""

    def write_all(simd: Simd, shape: Any) -> list[Value]:
        return [
            simd.function(shape.function_name("activate", name), 4, partial(_activation, formulas.forward))
            for name, formulas in _compiled_activations(shape)
        ]

    return _written(5, write_all)(tile_shape)


def _gradient(gradient: Callable[[Vector, Vector, Vector], Vector], simd: Simd, arguments: Sequence[Value]) -> None:
    constants, saved, upstream, out, count = arguments
    (alpha,) = load_constants(simd, constants, 1)
    saved, upstream, out = (simd.pointer(address) for address in (saved, upstream, out))

    def body(place: Value, mask: Value | None, carried: list[Vector]) -> list[Vector]:
        above = Vector(simd, simd.load(simd.move(upstream, place), mask))
        result = gradient(Vector(simd, simd.load(simd.move(saved, place), mask)), alpha, above)
        simd.store(result.value, simd.move(out, place), mask)
        return []

    for_each(simd, count, [], body)


@intrinsic
def differentiate(context, tile_shape, code, constants, saved, upstream, out, count):
    """``out = upstream * d activation / dz`` for `count` elements; `out` may be `upstream`."""

    def write_all(simd: Simd, shape: Any) -> list[Value]:
        return [
            simd.function(shape.function_name("differentiate", name), 5, partial(_gradient, formulas.gradient))
            for name, formulas in _compiled_activations(shape)
        ]

    return _written(6, write_all)(tile_shape)


def _unary(function: Callable[[Vector], Vector], simd: Simd, arguments: Sequence[Value]) -> None:
    x, out, count = arguments
    x, out = simd.pointer(x), simd.pointer(out)

    def body(place: Value, mask: Value | None, carried: list[Vector]) -> list[Vector]:
        simd.store(function(Vector(simd, simd.load(simd.move(x, place), mask))).value, simd.move(out, place), mask)
        return []

    for_each(simd, count, [], body)


def make_unary(function: Callable[[Vector], Vector]) -> Any:
    """An intrinsic: ``out = function(x)`` for `count` elements; `out` may be `x`."""

    @intrinsic
    def unary(context, tile_shape, x, out, count):
        return calling(tile_shape, function.__name__, 3, partial(_unary, function))

    return unary


exponentials = make_unary(functions.exp)


def _scale_bytes(simd: Simd, arguments: Sequence[Value]) -> None:
    constants, source, out, count, ahead = arguments
    (scale,) = load_constants(simd, constants, 1)
    source, ahead, out = simd.byte_pointer(source), simd.byte_pointer(ahead), simd.pointer(out)

    def body(place: Value, mask: Value | None, carried: list[Vector]) -> list[Vector]:
        simd.prefetch_byte(simd.move(ahead, place))
        number = Vector(simd, simd.load_bytes(simd.move(source, place), mask))
        simd.store((number * scale).value, simd.move(out, place), mask)
        return []

    for_each(simd, count, [], body)


@intrinsic
def scale_bytes(context, tile_shape, constants, source, out, count, ahead):
    """``out = constants[0] * source`` for `count` bytes, prefetching those at `ahead`."""
    return calling(tile_shape, "scale_bytes", 5, _scale_bytes)


def _scale_row(simd: Simd, arguments: Sequence[Value]) -> None:
    constants, source, out, count, ahead = arguments
    (scale,) = load_constants(simd, constants, 1)
    source, ahead, out = (simd.pointer(address) for address in (source, ahead, out))

    def body(place: Value, mask: Value | None, carried: list[Vector]) -> list[Vector]:
        simd.prefetch(ahead, [place], write=False)
        number = Vector(simd, simd.load(simd.move(source, place), mask))
        simd.store((number * scale).value, simd.move(out, place), mask)
        return []

    for_each(simd, count, [], body)


@intrinsic
def scale_row(context, tile_shape, constants, source, out, count, ahead):
    """``out = constants[0] * source`` for `count` elements, prefetching those at `ahead`."""
    return calling(tile_shape, "scale_row", 5, _scale_row)


def _update(rule: Rule, simd: Simd, arguments: Sequence[Value]) -> None:
    record, gradients, count = arguments
    updating, gradients = Updating(simd, record, rule), simd.pointer(gradients)

    def body(place: Value, mask: Value | None, carried: list[Vector]) -> list[Vector]:
        pointer = simd.move(gradients, place)
        updating(simd.load(pointer, mask), pointer, mask)
        return []

    for_each(simd, count, [], body)


@intrinsic
def update(context, tile_shape, rule, record, gradients, count):
    """An optimiser's step for `count` parameters; the record, at an address, is that of `updates.py`."""

    def write_all(simd: Simd, shape: Any) -> list[Value]:
        return [simd.function(shape.function_name("update", rule.name), 3, partial(_update, rule)) for rule in RULES]

    return _written(4, write_all)(tile_shape)


@intrinsic
def update_vectors(context, tile_shape, record, gradients, count):
    """The same with the rule named by the tile shape's epilogue; the others are not compiled."""
    (rule,) = (rule for rule in RULES if rule.name == tile_shape.tile_shape.epilogue)
    return calling(tile_shape, "update", 3, partial(_update, rule))


def _sigmoid_cross_entropy(simd: Simd, arguments: Sequence[Value]) -> None:
    constants, z, targets, gradient, count, sums = arguments
    (factor,) = load_constants(simd, constants, 1)
    z, targets, gradient, sums = (simd.pointer(address) for address in (z, targets, gradient, sums))
    nothing = Vector(simd, simd.zeros())

    def body(place: Value, mask: Value | None, carried: list[Vector]) -> list[Vector]:
        logits = Vector(simd, simd.load(simd.move(z, place), mask))
        t = Vector(simd, simd.load(simd.move(targets, place), mask))
        simd.store((factor * (functions.sigmoid(logits) - t)).value, simd.move(gradient, place), mask)
        loss = softplus(logits) - logits * t
        same = simd.builder.not_(simd.builder.xor(logits > 0, t > 0.5))
        if mask is not None:
            loss = where(mask, loss, 0)
            same = simd.builder.and_(mask, same)
        return [carried[0] + loss, carried[1] + where(same, nothing + 1, 0)]

    totals = for_each(simd, count, [nothing, nothing], body)
    for number, total in enumerate(totals):
        simd.builder.store(simd.combined(total.value, simd.builder.fadd), simd.move(sums, simd.integer(number)))


@intrinsic
def sigmoid_cross_entropy_row(context, tile_shape, constants, z, targets, gradient, count, sums):
    """``gradient = constants[0] * (sigmoid(z) - targets)`` for `count` elements; `gradient` may be `z`.

    Writes the sum of the losses and the number of correct predictions to `sums`, in the type of the elements.
    """
    return calling(tile_shape, "sigmoid_cross_entropy", 6, _sigmoid_cross_entropy)
