"""What an array of any library says about itself: dtype, addresses and strides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy.typing as npt

__all__ = ["Array", "HostArray", "dtype_name", "kind_of", "last_axis_is_contiguous", "overlap", "span_of"]

#: An array on a backend's device; its type depends on the backend.
Array = Any
#: A NumPy array in host memory.
HostArray = npt.NDArray[Any]


def kind_of(array: Any) -> tuple[Any, ...]:
    """Everything that the check of a single array depends on."""
    return tuple(array.shape), dtype_name(array), getattr(array, "strides", None)


def dtype_name(array: Any) -> str:
    """The name of an array's dtype, for any array library."""
    dtype = array.dtype
    library: Any = type(dtype)
    name: str = _name_of(library, dtype)
    return name


@cache
def _name_of(library: Any, dtype: Any) -> str:
    # Cached because NumPy takes microseconds to format a dtype. Dtypes of two libraries are never compared.
    return str(dtype).rpartition(".")[2]


def span_of(array: Any) -> tuple[int, int] | None:
    """Address of an array's first byte and the address after its last; None if its library does not provide them."""
    if hasattr(array, "data_ptr"):
        return _span_of_tensor(array)
    interface = getattr(array, "__array_interface__", None) or getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        return None
    begin, strides = int(interface["data"][0]), interface.get("strides")
    if strides is None:
        return begin, begin + int(array.nbytes)
    if 0 in array.shape:
        return begin, begin
    itemsize = int(array.dtype.itemsize)
    return _span(begin, itemsize, array.shape, strides)


def _span_of_tensor(array: Any) -> tuple[int, int]:
    """The same for PyTorch's tensors, whose strides are numbers of elements."""
    begin, itemsize = int(array.data_ptr()), int(array.element_size())
    if 0 in array.shape:
        return begin, begin
    return _span(begin, itemsize, array.shape, [itemsize * step for step in array.stride()])


def _span(begin: int, itemsize: int, shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    steps = [(extent - 1) * step for extent, step in zip(shape, strides, strict=True)]
    return begin + sum(min(step, 0) for step in steps), begin + itemsize + sum(max(step, 0) for step in steps)


def last_axis_is_contiguous(array: Any) -> bool:
    """Whether it is contiguous, as far as its library provides strides."""
    strides = getattr(array, "strides", None)
    return not strides or array.shape[-1] <= 1 or 0 in array.shape or strides[-1] == array.dtype.itemsize


def overlap(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    return one is not None and other is not None and one[0] < other[1] and other[0] < one[1]
