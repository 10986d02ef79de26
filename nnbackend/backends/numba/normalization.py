"""Jitted kernels that scale rows.

Not with the fast-math flags of the other kernels: with ``arcp`` LLVM multiplies a row by ``1 / m``, which overflows
for a subnormal m, and with ``reassoc`` it takes ``(g * x) / m`` for ``g * (x / m)``, and the product may overflow. It
may choose the order of a sum, and no more: that is what lets it vectorise the sum.
"""

from __future__ import annotations

from functools import partial

from nnbackend.backends.numba.jit import as_written, jit

in_any_order = partial(jit, fastmath={"reassoc"})


@as_written
def max_abs_norm(x, bits, sign_free, out, begin, end):
    """`bits` is `x` seen as integers, `sign_free` masks all of their bits but the sign."""
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
        # Before the loop, which may overwrite it.
        at_largest = (above[k] - through_largest) / largest
        for j in range(row.size):
            out[i, j] = above[j] / largest
        out[i, k] = at_largest


@as_written
def _first_largest(bits, sign_free):
    """Column of the first largest magnitude; a NaN is larger than any number.

    Without their signs, floating-point numbers are in the order of their bits, with infinity and NaN at the upper end;
    and unlike that of numbers which may be NaN, the maximum of integers is vectorised.
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
