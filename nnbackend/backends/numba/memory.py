"""Arrays at given addresses, for jitted code."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array, populate_array

from nnbackend.backends.numba.jit import internal
from nnbackend.backends.numba.simd import INTEGER

__all__ = ["bits_of", "columns_of", "counts", "matrix", "pointer", "row_at", "vector"]


@intrinsic
def pointer(context, address):
    """An address as a pointer."""

    def generate(target, builder, signature, arguments):
        return builder.inttoptr(arguments[0], target.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def matrix(context, address, rows, columns, kind):
    """The (rows, columns) array of a NumPy type at an address."""
    array = types.Array(kind.dtype, 2, "C")
    return array(types.int64, types.int64, types.int64, kind), _array


@intrinsic
def vector(context, address, size, kind):
    """The array of a NumPy type with one axis at an address."""
    return types.Array(kind.dtype, 1, "C")(types.int64, types.int64, kind), _array


@intrinsic
def counts(context, address, size):
    """A vector of integers at an address."""
    return types.Array(types.int64, 1, "C")(types.int64, types.int64), _array


def _array(target, builder, signature, arguments):
    """Writes an array. Numba's `carray` would be compiled for each type of arguments, each literal among them."""
    array = signature.return_type
    address, *shape = arguments[: 1 + array.ndim]
    size = ir.Constant(INTEGER, target.get_abi_sizeof(target.get_data_type(array.dtype)))
    strides = [size]
    for extent in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], extent))
    made = make_array(array)(target, builder)
    data = builder.inttoptr(address, target.get_data_type(array.dtype).as_pointer())
    populate_array(made, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return made._getvalue()


@internal
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


@internal
def columns_of(begin, end):
    """The bounds of a loop over columns as unsigned integers, which index arrays from the beginning only.

    Signed ones could be negative and count from the end. Numba checks each, and the compiler then uses no vectors.
    """
    return np.uintp(begin), np.uintp(end)
