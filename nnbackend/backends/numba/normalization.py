"""Jitted kernels that scale rows.

They do not use the fast-math flags of the other kernels. With ``arcp`` LLVM multiplies a row by ``1 / m``, which
overflows for a subnormal m. With ``reassoc`` it may replace ``g * (x / m)`` by ``(g * x) / m``, and the product may
overflow. Only the sum may be reordered, so that it can be vectorised.
"""

from __future__ import annotations

from functools import partial

from nnbackend.backends.numba.jit import as_written, jit

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
