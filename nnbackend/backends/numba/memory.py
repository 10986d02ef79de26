"""Arrays at given addresses, for jitted code."""

from __future__ import annotations

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic, overload

from nnbackend.backends.numba.jit import jit

__all__ = ["bits_of", "counts", "matrix", "pointer", "row_at", "vector"]


@intrinsic
def pointer(context, address):
    """An address as a pointer."""

    def generate(target, builder, signature, arguments):
        return builder.inttoptr(arguments[0], target.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@jit
def matrix(address, rows, columns, kind):
    """The (rows, columns) array of a NumPy type at an address."""
    return carray(pointer(address), (rows, columns), kind)


@jit
def vector(address, size, kind):
    return carray(pointer(address), (size,), kind)


@jit
def counts(address, size):
    """A vector of integers at an address."""
    return carray(pointer(address), (size,), np.int64)


@jit
def row_at(a, i):
    """Address of a row."""
    return a.ctypes.data + i * a.strides[0]


def bits_of(matrix):
    """A matrix of real numbers viewed as integers, and a mask that clears the sign bits."""
    raise NotImplementedError("for jitted code")


@overload(bits_of)
def _bits_of(matrix):
    integer, sign_free = (np.int32, 0x7FFFFFFF) if matrix.dtype == types.float32 else (np.int64, 0x7FFFFFFFFFFFFFFF)
    return lambda matrix: (carray(pointer(matrix.ctypes.data), matrix.shape, integer), sign_free)
