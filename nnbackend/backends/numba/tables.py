"""Jitted kernels of layers on tables. Sums are float64, in the order of the rows."""

from __future__ import annotations

import math

from nnbackend.backends.numba.jit import as_written


@as_written
def mix_columns(x, activated, share, out, begin, end):
    for i in range(begin, end):
        for j in range(share.size):
            out[i, j] = x[i, j] + share[j] * (activated[i, j] - x[i, j])


@as_written
def mix_columns_gradient(x, activated, upstream, share_gradient, sums, begin, end):
    """Columns from `begin` to `end`; `sums` is (columns,) of memory."""
    sums[begin:end] = 0
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


@as_written
def periodic_columns(x, frequencies, phases, weight, bias, cosines, sines, out, begin, end):
    """`weight` is (embedded waves, units). `cosines` and `sines` may be empty."""
    (embedded, waves), units, kind = frequencies.shape, bias.shape[1], x.dtype.type
    turn, saves = kind(2 * math.pi), cosines.shape[0] > 0
    for i in range(begin, end):
        for j in range(embedded):
            to, value = j * (1 + units), x[i, j]
            out[i, to] = value
            for m in range(units):
                out[i, to + 1 + m] = bias[j, m]
            for k in range(waves):
                angle = turn * frequencies[j, k] * value + phases[j, k]
                cosine = kind(math.cos(angle))
                if saves:
                    cosines[i, j * waves + k] = cosine
                    sines[i, j * waves + k] = kind(math.sin(angle))
                for m in range(units):
                    out[i, to + 1 + m] += cosine * weight[j * waves + k, m]
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
    for j in range(begin, end):
        sums[:] = 0
        for i in range(x.shape[0]):
            of, value = j * (1 + units) + 1, x[i, j]
            for m in range(units):
                sums[m, waves] += upstream[i, of + m]
            for k in range(waves):
                cosine, slope = cosines[i, j * waves + k], kind(0)
                for m in range(units):
                    sums[m, k] += cosine * upstream[i, of + m]
                    slope += weight[j * waves + k, m] * upstream[i, of + m]
                slope *= -sines[i, j * waves + k]
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
