"""What a library of the Python array API standard can do on a device, tried once when a backend is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nnbackend.errors import BackendUnavailableError
from nnbackend.support.extras import install_command

__all__ = ["Library", "examine"]

_REMEDY = "Use another backend, such as 'numba', or a library with arrays like NumPy's, such as PyTorch"


@dataclass(frozen=True)
class Library:
    """A library and a device.

    Attributes
    ----------
    xp : module
        The namespace of the array API standard.
    name : str
    device : object
        In the library's own terms; None for its default device.
    host : object
        The device of float64 arrays: the same, or the library's CPU if the device computes only in float32.
    has_float64 : bool
    shares_memory : bool
        Whether NumPy can use the memory of its arrays.
    """

    xp: Any
    name: str
    device: Any
    host: Any
    has_float64: bool
    shares_memory: bool


def examine(namespace: Any, device: Any) -> Library:
    """Try what the backend needs: writing in place, slices that are views, and integers that wrap around.

    Raises
    ------
    BackendUnavailableError
        The library lacks one of them, or it has no such device.
    """
    name: str = getattr(namespace, "__name__", type(namespace).__name__)
    xp = _standard(namespace, name)

    def ones(dtype: str, where: Any) -> Any:
        return xp.ones((2, 3), dtype=getattr(xp, dtype), device=where)

    cannot_make = f"it cannot make arrays on the device {device}"
    _try(name, cannot_make, lambda: ones("float32", device))
    if not _try(name, "its arrays cannot be written in place", lambda: _writes(xp, ones("float32", device))):
        raise BackendUnavailableError(name, "writing to one of its arrays has no effect", _REMEDY)
    if not _try(name, "its arrays have no views", lambda: _has_views(xp, device)):
        raise BackendUnavailableError(name, "slices of its arrays are copies instead of views", _REMEDY)
    _try(name, cannot_make, lambda: [ones(kind, device) for kind in _INTEGERS])
    if not _try(name, "it does not multiply int64 numbers", lambda: _wraps_around(xp, device)):
        raise BackendUnavailableError(name, "its int64 numbers do not wrap around, as random numbers need", _REMEDY)
    has_float64, host = _answers(lambda: ones("float64", device)), device
    if not has_float64:
        host = _with_float64(xp, lambda where: ones("float64", where))
        if host is None:
            raise BackendUnavailableError(name, "none of its devices has float64, which sums of losses need", _REMEDY)
    return Library(xp, name, device, host, has_float64, _answers(lambda: _shared(ones("float32", device))))


#: The dtypes of labels, orders and images. Asked for last: JAX, which is refused before, warns of int64.
_INTEGERS = ("int64", "int32", "uint8")


def _standard(namespace: Any, name: str) -> Any:
    """The namespace itself if it follows the standard, else array-api-compat's for its arrays."""
    if hasattr(namespace, "__array_namespace_info__"):
        return namespace
    try:
        from array_api_compat import array_namespace
    except ImportError:
        raise BackendUnavailableError(
            name, "array-api-compat is not installed", f"Run: {install_command('array-api')}"
        ) from None
    try:
        return array_namespace(namespace.empty(0))
    except (AttributeError, TypeError) as error:
        raise BackendUnavailableError(name, f"it does not follow the array API standard ({error})", _REMEDY) from None


def _try(name: str, problem: str, attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except Exception as error:
        # A library may refuse in its own way.
        raise BackendUnavailableError(name, f"{problem} ({type(error).__name__}: {error})", _REMEDY) from error


def _answers(attempt: Callable[[], Any]) -> bool:
    try:
        return attempt() is not False
    except Exception:
        return False


def _with_float64(xp: Any, ones: Callable[[Any], Any]) -> Any:
    """A device with float64, the default one if possible; None if there is none."""
    info = xp.__array_namespace_info__()
    if _answers(lambda: ones(info.default_device())):
        return info.default_device()
    return next((each for each in info.devices() if _answers(partial(ones, each))), None)


def _writes(xp: Any, array: Any) -> bool:
    array[0, :2] = 2.0
    array[...] = array + 1.0
    return float(xp.sum(array)) == 14


def _has_views(xp: Any, device: Any) -> bool:
    array = xp.zeros(7, dtype=xp.float32, device=device)
    window = xp.reshape(array[1:7], (2, 3), copy=False)[:, :2]
    window[...] = xp.ones((2, 2), dtype=xp.float32, device=device)
    return float(xp.sum(array)) == 4


def _wraps_around(xp: Any, device: Any) -> bool:
    largest = xp.full(1, 2**32 - 1, dtype=xp.int64, device=device)
    return int((largest * largest)[0]) == (2**32 - 1) ** 2 - 2**64


def _shared(array: Any) -> bool:
    shared = np.from_dlpack(array)
    array[...] = 2 * array
    return bool((shared == 2).all())
