"""Jitted kernels of layers on tables. Sums are float64, in the order of the rows."""

from __future__ import annotations

import math

import numpy as np

from nnbackend.backends.numba.jit import as_written, internal_as_written
from nnbackend.backends.numba.memory import columns_of


@as_written
def mix_columns(x, activated, share, out, begin, end):
    for i in range(begin, end):
        for j in range(share.size):
            out[i, j] = x[i, j] + share[j] * (activated[i, j] - x[i, j])


@as_written
def mix_columns_gradient(x, activated, upstream, share_gradient, sums, begin, end):
    """Columns from `begin` to `end`; `sums` is (columns,) of memory."""
    sums[begin:end] = 0
    begin, end = columns_of(begin, end)
    for i in range(x.shape[0]):
        for j in range(begin, end):
            sums[j] += upstream[i, j] * (activated[i, j] - x[i, j])
    for j in range(begin, end):
        share_gradient[j] = x.dtype.type(sums[j])


@as_written
def embed_columns(x, vectors, embedded, out, begin, end):
    """`vectors` is (embedded categories, units)."""
    kept, units = x.shape[1] - embedded, vectors.shape[1]
    categories = vectors.shape[0] // embedded
    for i in range(begin, end):
        for j in range(kept):
            out[i, j] = x[i, j]
        for j in range(embedded):
            code, to = x[i, kept + j], kept + j * units
            # Also false for NaN.
            if code >= 0 and code < categories:
                place = j * categories + int(code)
                for k in range(units):
                    out[i, to + k] = vectors[place, k]
            else:
                for k in range(units):
                    out[i, to + k] = 0


@as_written
def embed_columns_gradient(x, upstream, vectors_gradient, embedded, sums, begin, end):
    """Embedded columns from `begin` to `end`; `sums` is (categories, units) of memory."""
    kept, (categories, units) = x.shape[1] - embedded, sums.shape
    for j in range(begin, end):
        sums[:] = 0
        for i in range(x.shape[0]):
            code, of = x[i, kept + j], kept + j * units
            if code >= 0 and code < categories:
                place = int(code)
                for k in range(units):
                    sums[place, k] += upstream[i, of + k]
        for place in range(categories):
            for k in range(units):
                vectors_gradient[j * categories + place, k] = x.dtype.type(sums[place, k])


#: Of larger angles, the remainder of a division by a quarter turn would not be precise enough.
_LARGEST_ANGLE = 1e5

#: A quarter turn: its first bits, whose multiples up to that angle are exact, and the rest.
_QUARTER = math.ldexp(round(math.ldexp(math.pi / 2, 32)), -32)
_QUARTER_REST = (math.pi / 2 - _QUARTER) + 6.123233995736766e-17

#: The series of sine and cosine: ``x (s0 + s1 x^2 + ...)`` and ``c0 + c1 x^2 + ...``. Within an eighth of a turn, the
#: terms left out are smaller than rounding.
_SINE = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(8))
_COSINE = tuple((-1) ** k / math.factorial(2 * k) for k in range(9))


@internal_as_written
def _wave(angle, kind):
    """Cosine and sine, without branches, so that the compiler can use vectors."""
    quarters = np.rint(np.float64(angle) * (2 / math.pi))
    rest = kind((np.float64(angle) - quarters * _QUARTER) - quarters * _QUARTER_REST)
    square, sine, cosine = rest * rest, kind(_SINE[7]), kind(_COSINE[8])
    for k in range(6, -1, -1):
        sine = sine * square + kind(_SINE[k])
    for k in range(7, -1, -1):
        cosine = cosine * square + kind(_COSINE[k])
    sine *= rest
    quadrant = quarters - 4 * np.floor(quarters * 0.25)
    odd = (quadrant == 1) | (quadrant == 3)
    first, second = (sine if odd else cosine), (cosine if odd else sine)
    return (-first if (quadrant == 1) | (quadrant == 2) else first), (-second if quadrant >= 2 else second)


@internal_as_written
def _waves(angles, cosines, sines, kind):
    """The cosines and sines of some angles."""
    near = True
    for k in range(angles.size):
        # False for NaN, too.
        near &= abs(angles[k]) <= _LARGEST_ANGLE
    if near:
        for k in range(angles.size):
            cosines[k], sines[k] = _wave(angles[k], kind)
    else:
        for k in range(angles.size):
            cosines[k], sines[k] = kind(math.cos(angles[k])), kind(math.sin(angles[k]))


@as_written
def periodic_columns(x, frequencies, phases, weight, bias, cosines, sines, out, begin, end):
    """`weight` is (embedded waves, units). `cosines` and `sines` may be empty."""
    (embedded, waves), units, kind = frequencies.shape, bias.shape[1], x.dtype.type
    turn, saves = kind(2 * math.pi), cosines.shape[0] > 0
    # All waves of a row at once, because the compiler's vectors pay in long loops.
    terms = embedded * waves
    angles, cosine, sine = np.empty(terms, x.dtype), np.empty(terms, x.dtype), np.empty(terms, x.dtype)
    for i in range(begin, end):
        for j in range(embedded):
            for k in range(waves):
                angles[j * waves + k] = turn * frequencies[j, k] * x[i, j] + phases[j, k]
        _waves(angles, cosine, sine, kind)
        if saves:
            for k in range(terms):
                cosines[i, k], sines[i, k] = cosine[k], sine[k]
        for j in range(embedded):
            to = j * (1 + units)
            out[i, to] = x[i, j]
            for m in range(units):
                total = bias[j, m]
                for k in range(j * waves, (j + 1) * waves):
                    total += cosine[k] * weight[k, m]
                out[i, to + 1 + m] = total
        for j in range(embedded, x.shape[1]):
            out[i, embedded * units + j] = x[i, j]


@as_written
def periodic_columns_gradient(
    x,
    cosines,
    sines,
    upstream,
    weight,
    frequencies_gradient,
    phases_gradient,
    weight_gradient,
    bias_gradient,
    sums,
    begin,
    end,
):
    """Embedded columns from `begin` to `end`; `sums` is (units + 2, waves + 1) of memory."""
    waves, units, kind = frequencies_gradient.shape[1], bias_gradient.shape[1], x.dtype.type
    slopes, transposed = np.empty(waves, x.dtype), np.empty((units, waves), x.dtype)
    for j in range(begin, end):
        sums[:] = 0
        for m in range(units):
            for k in range(waves):
                transposed[m, k] = weight[j * waves + k, m]
        for i in range(x.shape[0]):
            of, value, first = j * (1 + units) + 1, x[i, j], j * waves
            slopes[:] = 0
            # The waves are the innermost loop, which the compiler turns into vectors if no index may be negative.
            for m in range(units):
                up = upstream[i, of + m]
                sums[m, waves] += up
                for k in range(waves):
                    sums[m, k] += cosines[i, np.uintp(first + k)] * up
                    slopes[k] += transposed[m, k] * up
            for k in range(waves):
                slope = slopes[k] * -sines[i, np.uintp(first + k)]
                sums[units, k] += slope
                sums[units + 1, k] += slope * value
        for m in range(units):
            bias_gradient[j, m] = kind(sums[m, waves])
        for k in range(waves):
            for m in range(units):
                weight_gradient[j * waves + k, m] = kind(sums[m, k])
            phases_gradient[j, k] = kind(sums[units, k])
            frequencies_gradient[j, k] = kind(2 * math.pi * sums[units + 1, k])


@as_written
def periodic_columns_input_gradient(sines, upstream, frequencies, weight, out, begin, end):
    (embedded, waves), units, kind = frequencies.shape, weight.shape[1], out.dtype.type
    turn = kind(2 * math.pi)
    for i in range(begin, end):
        for j in range(embedded):
            of, total = j * (1 + units), kind(0)
            for k in range(waves):
                slope = kind(0)
                for m in range(units):
                    slope += weight[j * waves + k, m] * upstream[i, of + 1 + m]
                total -= sines[i, j * waves + k] * slope * frequencies[j, k]
            out[i, j] = upstream[i, of] + turn * total
        for j in range(embedded, out.shape[1]):
            out[i, j] = upstream[i, embedded * units + j]
