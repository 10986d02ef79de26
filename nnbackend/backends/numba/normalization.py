"""Jitted kernels that normalise rows or columns.

They do not use the fast-math flags of the other kernels. With ``arcp`` LLVM multiplies a row by ``1 / m``, which
overflows for a subnormal m. With ``reassoc`` it may replace ``g * (x / m)`` by ``(g * x) / m``, and the product may
overflow. Only the sum may be reordered, so that it can be vectorised.
"""

from __future__ import annotations

import math
from functools import partial

from nnbackend.backends.numba.jit import as_written, internal_as_written, jit
from nnbackend.backends.numba.memory import columns_of

in_any_order = partial(jit, fastmath={"reassoc"})


@as_written
def max_abs_norm(x, bits, sign_free, out, begin, end):
    """`bits` is `x` viewed as integers, and `sign_free` masks all bits except the sign."""
    for i in range(begin, end):
        row = x[i]
        largest = _divisor(row, _first_largest(bits[i], sign_free))
        for j in range(row.size):
            out[i, j] = row[j] / largest


@as_written
def max_abs_norm_gradient(x, bits, sign_free, upstream, out, begin, end):
    for i in range(begin, end):
        row = x[i]
        above = upstream[i]
        k = _first_largest(bits[i], sign_free)
        largest = _divisor(row, k)
        through_largest = row[k] / largest * _sum_of_products(above, row, largest)
        # Read before the loop, which may overwrite it.
        at_largest = (above[k] - through_largest) / largest
        for j in range(row.size):
            out[i, j] = above[j] / largest
        out[i, k] = at_largest


@as_written
def _first_largest(bits, sign_free):
    """Column of the first largest magnitude; a NaN is larger than any number.

    Magnitudes of floating-point numbers are ordered like their bits, with infinity and NaN at the upper end. The
    maximum of integers is vectorised, unlike that of floating-point numbers that may be NaN.
    """
    largest = bits[0] & sign_free
    for j in range(1, bits.size):
        largest = max(largest, bits[j] & sign_free)
    k = 0
    while bits[k] & sign_free != largest:
        k += 1
    return k


@as_written
def _divisor(row, k):
    return abs(row[k]) if row[k] != 0 else row.dtype.type(1)


@in_any_order
def _sum_of_products(above, row, largest):
    total = row.dtype.type(0)
    for j in range(row.size):
        total += _product(above[j], row[j], largest)
    return total


@as_written
def _product(above, value, largest):
    return above * (value / largest)


@as_written
def batch_norm(
    x, scale, shift, momentum, epsilon, running_mean, running_variance, statistics, out, sums, begin, end
):  # fmt: skip
    """Columns from `begin` to `end`; `sums` is (2, columns) of memory."""
    rows, kind = x.shape[0], x.dtype.type
    mean, squares = sums[0], sums[1]
    mean[begin:end] = 0
    squares[begin:end] = 0
    begin, end = columns_of(begin, end)
    for i in range(rows):
        for j in range(begin, end):
            mean[j] += x[i, j]
    for j in range(begin, end):
        mean[j] /= rows
    for i in range(rows):
        for j in range(begin, end):
            difference = x[i, j] - mean[j]
            squares[j] += difference * difference
    for j in range(begin, end):
        variance = squares[j] / rows
        running_mean[j] = kind(running_mean[j] * momentum + (1 - momentum) * mean[j])
        running_variance[j] = kind(running_variance[j] * momentum + (1 - momentum) * variance)
        statistics[0, j] = kind(mean[j])
        statistics[1, j] = kind(1 / math.sqrt(variance + epsilon))
    _by_columns(x, statistics[0], statistics[1], scale, shift, out, 0, rows, begin, end)


@internal_as_written
def _by_columns(x, mean, inverse, scale, shift, out, top, bottom, begin, end):
    """``(x - mean) * inverse * scale + shift`` for a block; arrays of size 0 are left out."""
    begin, end = columns_of(begin, end)
    for i in range(top, bottom):
        for j in range(begin, end):
            out[i, j] = (x[i, j] - mean[j]) * inverse[j]
        if scale.size:
            for j in range(begin, end):
                out[i, j] *= scale[j]
        if shift.size:
            for j in range(begin, end):
                out[i, j] += shift[j]


@as_written
def batch_norm_gradient(
    x, statistics, scale, upstream, scale_gradient, shift_gradient, out, sums, begin, end
):  # fmt: skip
    """Columns from `begin` to `end`; `sums` is (2, columns) of memory."""
    rows, kind = x.shape[0], x.dtype.type
    mean, inverse = statistics[0], statistics[1]
    totals, products = sums[0], sums[1]
    totals[begin:end] = 0
    products[begin:end] = 0
    begin, end = columns_of(begin, end)
    for i in range(rows):
        for j in range(begin, end):
            totals[j] += upstream[i, j]
            products[j] += upstream[i, j] * ((x[i, j] - mean[j]) * inverse[j])
    for j in range(begin, end):
        if shift_gradient.size:
            shift_gradient[j] = kind(totals[j])
        if scale_gradient.size:
            scale_gradient[j] = kind(products[j])
        totals[j] /= rows
        products[j] /= rows
    for i in range(rows):
        for j in range(begin, end):
            y = (x[i, j] - mean[j]) * inverse[j]
            out[i, j] = (upstream[i, j] - kind(totals[j]) - y * kind(products[j])) * inverse[j]
        if scale.size:
            for j in range(begin, end):
                out[i, j] *= scale[j]


@as_written
def normalize(x, mean, variance, scale, shift, epsilon, out, prepared, begin, end):
    """Rows from `begin` to `end`; `prepared` is (2, columns) of memory."""
    columns, kind = x.shape[1], x.dtype.type
    for j in range(columns):
        prepared[0, j] = mean[j] if mean.size else kind(0)
        prepared[1, j] = kind(1 / math.sqrt(variance[j] + epsilon))
    _by_columns(x, prepared[0], prepared[1], scale, shift, out, begin, end, 0, columns)


@as_written
def scale_columns(x, scale, out, begin, end):
    for i in range(begin, end):
        for j in range(scale.size):
            out[i, j] = x[i, j] * scale[j]


@as_written
def scale_columns_gradient(x, upstream, scale_gradient, sums, begin, end):
    """Columns from `begin` to `end`; `sums` is (columns,) of memory."""
    sums[begin:end] = 0
    begin, end = columns_of(begin, end)
    for i in range(x.shape[0]):
        for j in range(begin, end):
            sums[j] += upstream[i, j] * x[i, j]
    for j in range(begin, end):
        scale_gradient[j] = x.dtype.type(sums[j])


@as_written
def layer_norm(x, scale, shift, epsilon, statistics, out, begin, end):
    columns, kind = x.shape[1], x.dtype.type
    for i in range(begin, end):
        total = 0.0
        for j in range(columns):
            total += x[i, j]
        mean = total / columns
        squares = 0.0
        for j in range(columns):
            difference = x[i, j] - mean
            squares += difference * difference
        statistics[i, 0] = kind(mean)
        statistics[i, 1] = kind(1 / math.sqrt(squares / columns + epsilon))
        center, inverse = statistics[i, 0], statistics[i, 1]
        for j in range(columns):
            out[i, j] = (x[i, j] - center) * inverse
        if scale.size:
            for j in range(columns):
                out[i, j] *= scale[j]
        if shift.size:
            for j in range(columns):
                out[i, j] += shift[j]


@as_written
def layer_norm_gradient(x, statistics, scale, upstream, out, begin, end):
    columns, kind = x.shape[1], x.dtype.type
    for i in range(begin, end):
        mean, inverse = statistics[i, 0], statistics[i, 1]
        total = product = 0.0
        for j in range(columns):
            g = upstream[i, j] * scale[j] if scale.size else upstream[i, j]
            total += g
            product += g * ((x[i, j] - mean) * inverse)
        total, product = kind(total / columns), kind(product / columns)
        for j in range(columns):
            g = upstream[i, j] * scale[j] if scale.size else upstream[i, j]
            out[i, j] = (g - total - (x[i, j] - mean) * inverse * product) * inverse


@as_written
def layer_norm_scale_gradient(x, statistics, upstream, scale_gradient, sums, begin, end):
    """Columns from `begin` to `end`; `sums` is (2, columns) of memory."""
    totals = sums[0]
    totals[begin:end] = 0
    begin, end = columns_of(begin, end)
    for i in range(x.shape[0]):
        mean, inverse = statistics[i, 0], statistics[i, 1]
        for j in range(begin, end):
            totals[j] += upstream[i, j] * ((x[i, j] - mean) * inverse)
    for j in range(begin, end):
        scale_gradient[j] = x.dtype.type(totals[j])
