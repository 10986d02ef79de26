"""From whatever the caller has to a checked host array: once, at the boundary, so that no step checks anything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.base import HostArray
from nnbackend.errors import InvalidInputError

__all__ = ["as_host_array", "check_features", "input_scale_of", "scaled_rows"]

_DLPACK_CPU = 1


def as_host_array(what: str, value: Any) -> HostArray:
    """`value` as a NumPy array in host memory, without a copy where none is needed.

    Parameters
    ----------
    what : str
        What to call it in an error: "x".
    value : NumPy array, array of another library, DataFrame, nested lists of numbers

    Raises
    ------
    InvalidInputError
        It holds strings or objects, is ragged, or lives on another library's device; the message says how to
        bring it over.
    """
    if not isinstance(value, np.ndarray):
        value = _from_another_library(what, value)
    if value.dtype.kind not in "buif":
        raise InvalidInputError(
            f"{what} must hold numbers, received dtype {value.dtype}; convert it, for example with {what}.astype(float)"
        )
    array: HostArray = value
    return array


def _from_another_library(what: str, value: Any) -> Any:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if hasattr(value, "__dlpack_device__") and hasattr(value, "__dlpack__"):
        if type(value).__module__.partition(".")[0] == "cupy":
            return value.get()
        device = value.__dlpack_device__()
        if int(device[0]) != _DLPACK_CPU:
            raise InvalidInputError(
                f"{what} is a {kind} on another device (DLPack device {tuple(int(part) for part in device)}); "
                f"copy it to the host first, for example with {what}.cpu() or numpy.asarray({what})"
            )
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError):
            pass  # Such as a dtype DLPack cannot carry, or a tensor that tracks gradients: numpy.asarray says which.
    try:
        return np.asarray(value)
    except Exception as error:
        # Each library raises what it likes here; the caller needs one error that says what to do.
        raise InvalidInputError(
            f"{what} is a {kind} that NumPy cannot read ({error}); give an array of numbers"
        ) from error


def check_features(x: Any, input_shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
    """The rows of `x` as a contiguous (n, features) array of uint8 or the network's dtype.

    Raises
    ------
    InvalidInputError
        No rows, another number of features than the network's, NaN or infinity.
    """
    array = as_host_array("x", x)
    features = math.prod(input_shape)
    if array.ndim == 0 or len(array) == 0:
        raise InvalidInputError(f"x is empty: received shape {array.shape}; give at least one row")
    if array.ndim == 1 or math.prod(array.shape[1:]) != features:
        expected = " x ".join(str(size) for size in input_shape)
        hint = "; for a single sample give x[None]" if array.size == features else ""
        raise InvalidInputError(f"x must have {expected} features a row, received shape {array.shape}{hint}")
    if array.ndim > 2 and len(input_shape) > 1 and array.shape[1:] != input_shape:
        raise InvalidInputError(f"samples must have shape {input_shape}, received {array.shape[1:]}")
    rows = array.reshape(len(array), features)
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        bad = ~np.isfinite(rows)
        row, column = np.argwhere(bad)[0]
        raise InvalidInputError(
            f"x holds {int(bad.sum())} NaN or infinite values, the first in row {row}, feature {column}; "
            "remove or replace them"
        )
    if rows.dtype == np.uint8:
        return np.ascontiguousarray(rows)
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(rows, dtype=dtype)
    if rows.dtype.kind == "f" and rows.dtype.itemsize > converted.dtype.itemsize and not np.isfinite(converted).all():
        raise InvalidInputError(
            f"x holds values beyond the range of {converted.dtype}; scale it or use dtype='float64'"
        )
    return converted


def input_scale_of(array: HostArray, input_scale: float | None) -> float:
    """The factor the gather applies: the network's own, or 1/255 for bytes (images) and 1 for all else."""
    if input_scale is not None:
        return input_scale
    return 1 / 255 if array.dtype == np.uint8 else 1.0


def scaled_rows(rows: HostArray, input_scale: float | None, dtype: npt.DTypeLike) -> HostArray:
    """What the gather would give for these rows, on the host: scaled, in the network's dtype."""
    scale = input_scale_of(rows, input_scale)
    if scale == 1:
        return rows.astype(dtype, copy=False)
    scaled: HostArray = np.multiply(rows, scale, dtype=dtype)
    return scaled
