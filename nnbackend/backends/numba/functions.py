"""Exponentials and logarithms of whole vectors.

The C library's functions need a call for each element. These need a few multiplications and additions. Each reduces the
argument to a range near 0 by a power of 2, sums a series there, and multiplies by the power (Muller 2016, "Elementary
Functions", chapter 11).

Largest errors in units in the last place, tested by `tests/backends/test_numba_functions.py`:

======== =================== =====================================================
function float32 and float64 arguments
======== =================== =====================================================
exp      1.5                 all; a subnormal result may be 0
expm1    2                   up to 88 or 709; constant beyond
log      1                   positive and not subnormal
log1p    1.5                 from 0 to 1
tanh     3                   all
sigmoid  2.5                 all; a subnormal result may be 0
======== =================== =====================================================

NaN gives NaN.
"""

from __future__ import annotations

import math

from nnbackend.backends.numba.simd import Simd, Value
from nnbackend.backends.numba.vectors import Number, Vector, bits, from_bits, multiply_add, where, whole_numbers

__all__ = ["exp", "expm1", "log", "log1p", "sigmoid", "tanh"]


class _Format:
    """A floating-point format.

    Parameters
    ----------
    fraction_bits, largest_exponent : int
    ln2_high, ln2_low : float
        ln(2) in two parts; the first has so few bits that its product with any exponent is exact.
    exp_terms, log_terms : int
        Numbers of terms of the series.
    """

    def __init__(
        self, fraction_bits: int, largest_exponent: int, ln2_high: float, ln2_low: float, exp_terms: int, log_terms: int
    ) -> None:
        self.fraction_bits = fraction_bits
        self.bias = largest_exponent
        self.ln2_high, self.ln2_low = ln2_high, ln2_low
        #: Adding it to a number rounds the number to an integer, in the last bits of the sum.
        self.rounder = 1.5 * 2.0**fraction_bits
        #: Beyond the first two the exponential function is 0 or infinite; between the others it is neither subnormal
        #: nor infinite.
        self.zero_at = -(largest_exponent + fraction_bits + 1) * math.log(2)
        self.infinite_at = (largest_exponent + 1) * math.log(2) + 1
        self.least = math.ceil((1 - largest_exponent) * math.log(2))
        self.most = math.floor((largest_exponent + 1) * math.log(2))
        #: For larger arguments tanh is 1.
        self.one_at = math.ceil((fraction_bits + 3) / 2 * math.log(2))
        #: exp(r) = 1 + r + r^2 / 2! + ...; without the first two.
        self.exp_series = [1 / math.factorial(k) for k in range(2, 2 + exp_terms)]
        #: atanh(s) = s + s^3 / 3 + s^5 / 5 + ...; without the first.
        self.atanh_series = [1 / (2 * k + 1) for k in range(1, 1 + log_terms)]


_FORMATS = {
    "float32": _Format(23, 127, 0.693359375, -2.12194440054690583e-4, 6, 5),
    "float64": _Format(52, 1023, 6.93145751953125e-1, 1.42860682030941723212e-6, 12, 10),
}


def _polynomial(x: Vector, coefficients: list[float]) -> Vector:
    """``coefficients[0] + coefficients[1] x + ...``"""
    result = x.like(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = multiply_add(result, x, coefficient)
    return result


def _clamp(x: Vector, least: float, most: float) -> Vector:
    # Comparisons with NaN are false, so NaN propagates.
    x = where(x < least, least, x)
    return where(x > most, most, x)


def _reduce(x: Vector) -> tuple[Value, Vector]:
    """``x = n ln(2) + r`` with ``|r| <= ln(2) / 2``; n, and ``exp(r) - 1``."""
    form = _FORMATS[x.simd.name]
    rounded = multiply_add(x, math.log2(math.e), form.rounder)
    n = rounded - form.rounder
    r = multiply_add(n, -form.ln2_high, x)
    r = multiply_add(n, -form.ln2_low, r)
    exponent = x.simd.builder.sub(bits(rounded), bits(x.like(form.rounder)))
    return exponent, multiply_add(_polynomial(r, form.exp_series), r * r, r)


def _power_of_2(simd: Simd, n: Value) -> Vector:
    form = _FORMATS[simd.name]
    biased = simd.builder.add(n, whole_numbers(simd, form.bias))
    return from_bits(simd, simd.builder.shl(biased, whole_numbers(simd, form.fraction_bits)))


def exp(x: Vector) -> Vector:
    simd, form = x.simd, _FORMATS[x.simd.name]
    n, p = _reduce(_clamp(x, form.zero_at, form.infinite_at))
    # Multiply by two factors, because the power of 2 itself may be out of range.
    half = simd.builder.ashr(n, whole_numbers(simd, 1))
    power, rest = _power_of_2(simd, half), _power_of_2(simd, simd.builder.sub(n, half))
    return multiply_add(p, power, power) * rest


def expm1(x: Vector) -> Vector:
    """``exp(x) - 1`` without loss of precision near 0."""
    form = _FORMATS[x.simd.name]
    n, p = _reduce(_clamp(x, form.least, form.most))
    power = _power_of_2(x.simd, n)
    return multiply_add(p, power, power - 1)


def log(x: Vector) -> Vector:
    """The natural logarithm."""
    simd, form = x.simd, _FORMATS[x.simd.name]
    builder, shift = simd.builder, whole_numbers(simd, form.fraction_bits)
    # x = 2^n m, with m from sqrt(1/2) to sqrt(2)
    n = builder.ashr(builder.sub(bits(x), bits(x.like(math.sqrt(0.5)))), shift)
    f = from_bits(simd, builder.sub(bits(x), builder.shl(n, shift))) - 1
    # log(m) = 2 atanh(s), where 2 s = f - f s
    s = f / (f + 2)
    square = s * s
    tail = s * (2 * square * _polynomial(square, form.atanh_series) - f)
    exponent = Vector(simd, builder.sitofp(n, simd.vector))
    low = multiply_add(exponent, form.ln2_low, tail)
    # x - x is 0, or NaN if x is infinite or NaN.
    return multiply_add(exponent, form.ln2_high, f + low) + (x - x)


def log1p(x: Vector) -> Vector:
    """``log(1 + x)`` without loss of precision near 0."""
    # The first term of a series corrects the rounding error of 1 + x.
    one_more = x + 1
    return log(one_more) + (x - (one_more - 1)) / one_more


def tanh(x: Vector) -> Vector:
    most = _FORMATS[x.simd.name].one_at
    e = expm1(2 * _clamp(x, -most, most))
    return e / (e + 2)


def sigmoid(x: Vector) -> Vector:
    return 1 / (1 + exp(-x))


def larger(a: Vector, b: Number) -> Vector:
    """The larger of two; NaN if `a` is."""
    return where(a < b, b, a)
