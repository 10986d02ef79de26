"""Describes the memory layout of matrices to kernels and cuBLAS."""

from __future__ import annotations

from nnbackend.backends.arrays import span_of
from nnbackend.backends.contract import Array
from nnbackend.backends.cupy.interface import Operands

__all__ = ["extents", "operands", "same_memory", "stride"]


def operands(transpose_a: bool, transpose_b: bool, a: Array, b: Array, out: Array, adds: bool = False) -> Operands:
    """``out = op(a) @ op(b)``, or ``out += ...``, of row-major matrices, as a column-major product for cuBLAS.

    A row-major matrix is the transpose of a column-major one. So cuBLAS computes the transposed result, ``op(b).T @
    op(a).T``, with swapped factors.
    """
    m, n = extents(out)
    k = a.shape[0] if transpose_a else a.shape[1]
    return Operands(transpose_b, transpose_a, n, m, k, b, stride(b), a, stride(a), out, stride(out), adds)


def extents(array: Array) -> tuple[int, int]:
    """Rows and columns; a vector is one column."""
    shape: tuple[int, ...] = array.shape
    return (shape[0], 1) if len(shape) == 1 else (shape[0], shape[1])


def stride(array: Array) -> int:
    """Elements from one row to the next, where a row is the last axis.

    For a single row, NumPy and CuPy may report any stride, but cuBLAS rejects strides below the width.
    """
    shape = array.shape
    if len(shape) == 1:
        return 1
    for axis in range(len(shape) - 2, -1, -1):
        # Axes of one element between this one and the last do not matter.
        if shape[axis] > 1:
            return int(array.strides[axis]) // int(array.dtype.itemsize)
    return max(1, int(shape[-1]))


def same_memory(one: Array, other: Array) -> bool:
    """Whether two arrays are the same, or views of the same elements in different shapes."""
    return one is other or (one.size == other.size and _address(one) == _address(other))


def _address(array: Array) -> int | None:
    pointer = getattr(array.data, "ptr", None)
    if pointer is not None:
        return int(pointer)
    span = span_of(array)
    return None if span is None else span[0]
