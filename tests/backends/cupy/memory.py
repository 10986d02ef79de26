"""Device memory on the CPU: arrays that, like CuPy's, cannot be converted implicitly to NumPy's.

Every buffer ends at a page without access, so that even a read beyond it is an error, whether its result is used or
not. In front of it, and in the few bytes that its alignment may leave behind it, is a guard zone in which writes are
found later.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from types import SimpleNamespace

import numpy as np

__all__ = ["Allocation", "DeviceArray", "GuardError", "allocate", "check_all", "place_of"]

_GUARD_BYTES = 512
_ALIGNMENT = 16
"""Bytes of the widest access of a thread."""
_GUARD_VALUE = 0xFF
"""NaN as float and double and -1 as an integer, so that a read affects the result."""

# Of Linux's mman.h; Python 3.11 lacks the second.
_NO_ACCESS, _NORESERVE = 0, 0x4000

_live: weakref.WeakSet[Allocation] = weakref.WeakSet()


class GuardError(AssertionError):
    """Something was written outside of a buffer."""


class Allocation:
    """One buffer of zeros in pages of its own.

    The system provides the pages when they are used, so a buffer may be much larger than the machine's memory.
    """

    def __init__(self, size: int) -> None:
        used = -(-(size + _ALIGNMENT + _GUARD_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
        raw = np.frombuffer(mmap.mmap(-1, used + mmap.PAGESIZE, flags), np.uint8)
        _forbid(raw.ctypes.data + used, mmap.PAGESIZE)
        slack = -size % _ALIGNMENT
        start = used - slack - size
        self.before = raw[start - _GUARD_BYTES : start]
        self.values = raw[start : start + size]
        self.after = raw[start + size : used]
        self.before[...] = self.after[...] = _GUARD_VALUE
        _live.add(self)

    def check(self) -> None:
        """Raise :class:`GuardError` if a guard zone was written to."""
        for place, zone in (("before", self.before), ("after", self.after)):
            if wrong := int(np.count_nonzero(zone != _GUARD_VALUE)):
                zone[...] = _GUARD_VALUE
                raise GuardError(f"{wrong} bytes were written {place} a buffer of {self.values.size} bytes")


def allocate(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> DeviceArray:
    """A guarded array of zeros."""
    dtype = np.dtype(dtype)
    allocation = Allocation(int(np.prod(shape)) * dtype.itemsize)
    return DeviceArray(allocation.values.view(dtype).reshape(shape), allocation)


def place_of(address: int) -> str:
    """Where an address is, in relation to the next buffer below it."""
    ends = [(allocation.values.ctypes.data + allocation.values.size, allocation) for allocation in list(_live)]
    below = max(((end, allocation.values.size) for end, allocation in ends if end <= address), default=None)
    return (
        f"address {address:#x}" if below is None else f"{address - below[0]} bytes after a buffer of {below[1]} bytes"
    )


def _forbid(address: int, size: int) -> None:
    """Forbid all accesses to some pages."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), _NO_ACCESS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def check_all() -> None:
    """Check the guards of all existing buffers."""
    for allocation in list(_live):
        allocation.check()


class DeviceArray:
    """The interface of a device array: shape, dtype, strides, slices. Values are accessible only through the
    runtime."""

    __array_ufunc__ = None

    def __init__(self, host: np.ndarray, allocation: Allocation) -> None:
        self.host = host
        self.allocation = allocation

    shape = property(lambda self: self.host.shape)
    strides = property(lambda self: self.host.strides)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    flags = property(lambda self: self.host.flags)
    #: Holds the address, as in CuPy.
    data = property(lambda self: SimpleNamespace(ptr=self.host.ctypes.data))

    @property
    def __cuda_array_interface__(self):
        """Address and strides for other libraries, as CuPy's arrays have it."""
        strides = None if self.host.flags.c_contiguous else self.host.strides
        return {"data": (self.host.ctypes.data, False), "shape": self.host.shape, "strides": strides, "version": 3}

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, key) -> DeviceArray:
        keys = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, (int, slice, type(None), type(Ellipsis))) for part in keys):
            raise TypeError("only slices of device arrays are views")
        if Ellipsis not in keys:
            keys = (*keys, ...)
        return DeviceArray(self.host[keys], self.allocation)

    def reshape(self, *shape) -> DeviceArray:
        result = self.host.reshape(*shape)
        if result.size and not np.shares_memory(result, self.host):
            raise ValueError("this reshape would copy")
        return DeviceArray(result, self.allocation)

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __bool__(self):
        raise TypeError("a device array's value is not known on the host")

    __float__ = __int__ = __index__ = __bool__

    def __repr__(self) -> str:
        return f"<device array {self.shape} {self.dtype}>"
