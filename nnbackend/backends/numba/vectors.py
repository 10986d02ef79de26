"""Vectors with operators: ``1 / (1 + exp(-z))`` generates the instructions that compute it for a whole vector.

As in `simd.py`, this code generates code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from nnbackend.backends.numba.simd import Simd, Value

__all__ = ["Number", "Vector", "for_each", "load_constants", "multiply_add", "where"]

#: The other operand of a vector: a number or a vector.
Number = Any


class Vector:
    """A vector of real numbers in the generated program.

    Parameters
    ----------
    simd : Simd
    value : Value
    """

    def __init__(self, simd: Simd, value: Value) -> None:
        self.simd = simd
        self.value = value

    def like(self, number: Number) -> Vector:
        """Convert a Python number to a vector with it in every lane; a vector is returned unchanged."""
        return number if isinstance(number, Vector) else Vector(self.simd, self.simd.constant(number))

    def _apply(self, instruction: str, a: Number, b: Number) -> Vector:
        return Vector(self.simd, getattr(self.simd.builder, instruction)(self.like(a).value, self.like(b).value))

    def __add__(self, other: Number) -> Vector:
        return self._apply("fadd", self, other)

    def __radd__(self, other: Number) -> Vector:
        return self._apply("fadd", other, self)

    def __sub__(self, other: Number) -> Vector:
        return self._apply("fsub", self, other)

    def __rsub__(self, other: Number) -> Vector:
        return self._apply("fsub", other, self)

    def __mul__(self, other: Number) -> Vector:
        return self._apply("fmul", self, other)

    def __rmul__(self, other: Number) -> Vector:
        return self._apply("fmul", other, self)

    def __truediv__(self, other: Number) -> Vector:
        return self._apply("fdiv", self, other)

    def __rtruediv__(self, other: Number) -> Vector:
        return self._apply("fdiv", other, self)

    def __neg__(self) -> Vector:
        return Vector(self.simd, self.simd.builder.fneg(self.value))

    def __abs__(self) -> Vector:
        return Vector(self.simd, self.simd.of_vectors("llvm.fabs", self.value))

    def __lt__(self, other: Number) -> Value:
        """A mask, which is false where an operand is NaN."""
        return self.simd.builder.fcmp_ordered("<", self.value, self.like(other).value)

    def __gt__(self, other: Number) -> Value:
        return self.simd.builder.fcmp_ordered(">", self.value, self.like(other).value)

    def root(self) -> Vector:
        """Square roots."""
        return Vector(self.simd, self.simd.of_vectors("llvm.sqrt", self.value))


def multiply_add(a: Vector, b: Number, c: Number) -> Vector:
    """``a * b + c``, rounded once where the CPU can."""
    return Vector(a.simd, a.simd.multiply_add(a.value, a.like(b).value, a.like(c).value))


def where(mask: Value, a: Number, b: Number) -> Vector:
    """``a`` in the lanes of the mask, ``b`` in the others; one of the two is a vector."""
    some = a if isinstance(a, Vector) else b
    return Vector(some.simd, some.simd.builder.select(mask, some.like(a).value, some.like(b).value))


def for_each(
    simd: Simd,
    count: Value,
    values: Sequence[Vector],
    body: Callable[[Value, Value | None, list[Vector]], Sequence[Vector]],
) -> list[Vector]:
    """A loop over vectors of `count` elements, ``values = body(place, mask, values)``; returns the final values.

    `place` is the index of the vector's first element. The last vector has a mask of the existing elements.
    """
    builder = simd.builder
    rest = builder.srem(count, simd.integer(simd.lanes))
    whole = builder.sub(count, rest)

    def wrapped(place: Value, carried: list[Value], mask: Value | None = None) -> list[Value]:
        return [result.value for result in body(place, mask, [Vector(simd, value) for value in carried])]

    results = simd.repeat(simd.integer(0), whole, simd.lanes, [vector.value for vector in values], wrapped)
    has_rest = builder.icmp_signed("!=", rest, simd.integer(0))
    results = simd.only_if(has_rest, lambda: wrapped(whole, results, simd.first(rest)), results)
    return [Vector(simd, value) for value in results]


def load_constants(simd: Simd, address: Value, count: int) -> list[Vector]:
    """Load float64 numbers from an address, and broadcast each to all lanes."""
    double = ir.DoubleType()
    pointer = simd.builder.inttoptr(address, double.as_pointer())
    vectors = []
    for number in range(count):
        value = simd.builder.load(simd.builder.gep(pointer, [simd.integer(number)]))
        if simd.real != double:
            value = simd.builder.fptrunc(value, simd.real)
        vectors.append(Vector(simd, simd.splat(value)))
    return vectors


def bits(vector: Vector) -> Value:
    """The bits of each lane as an integer."""
    return vector.simd.builder.bitcast(vector.value, _integers(vector.simd))


def from_bits(simd: Simd, value: Value) -> Vector:
    return Vector(simd, simd.builder.bitcast(value, simd.vector))


def whole_numbers(simd: Simd, number: int) -> Value:
    """The same integer in every lane."""
    return ir.Constant(_integers(simd), [number] * simd.lanes)


def _integers(simd: Simd) -> ir.VectorType:
    return ir.VectorType(ir.IntType(8 * simd.size), simd.lanes)
