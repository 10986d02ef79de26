"""Converts a caller's data to checked host arrays, once, so that training steps need no checks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.data.stored import check_claim, is_stored, reading
from nnbackend.errors import InvalidInputError

__all__ = ["as_host_array", "check_features", "check_shape", "check_values", "input_scale_of", "scaled_rows"]

_DLPACK_CPU = 1


def as_host_array(what: str, value: Any) -> HostArray:
    """`value` as a NumPy array in host memory, without a copy if possible.

    Parameters
    ----------
    what : str
        Its name in error messages: "x".
    value : NumPy array, array of another library, DataFrame, nested lists of numbers

    Raises
    ------
    InvalidInputError
        It contains strings or objects, is ragged, or is on another library's device; the message says how to convert
        it.
    DataError
        It is in a file that cannot be read, or that holds almost nothing of it.
    """
    if not isinstance(value, np.ndarray):
        value = _from_another_library(what, value)
    _check_numbers(what, value.dtype)
    array: HostArray = value
    return array


def _from_another_library(what: str, value: Any) -> Any:
    if is_stored(value):
        with reading(what, value):
            check_claim(what, value)
            return value[...]
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
            pass  # Such as a dtype unknown to DLPack, or a tensor that tracks gradients: numpy.asarray says which.
    try:
        return np.asarray(value)
    except Exception as error:
        # Libraries raise different errors here; the caller needs one error that says what to do.
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
    check_shape(array.shape, array.dtype, input_shape)
    rows = array.reshape(len(array), math.prod(input_shape))
    check_values(rows, dtype)
    if rows.dtype == np.uint8:
        return np.ascontiguousarray(rows)
    return np.ascontiguousarray(rows, dtype=dtype)


def _check_numbers(what: str, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "buif":
        raise InvalidInputError(
            f"{what} must hold numbers, received dtype {dtype}; convert it, for example with {what}.astype(float)"
        )


def check_shape(shape: tuple[int, ...], dtype: np.dtype[Any], input_shape: tuple[int, ...]) -> None:
    """Reject an `x` without rows, with a wrong number of features, or without numbers."""
    _check_numbers("x", dtype)
    features = math.prod(input_shape)
    if not shape or shape[0] == 0:
        raise InvalidInputError(f"x is empty: received shape {shape}; give at least one row")
    if len(shape) == 1 or math.prod(shape[1:]) != features:
        expected = " x ".join(str(size) for size in input_shape)
        hint = "; for a single sample give x[None]" if math.prod(shape) == features else ""
        raise InvalidInputError(f"x must have {expected} features a row, received shape {shape}{hint}")
    if len(shape) > 2 and len(input_shape) > 1 and shape[1:] != input_shape:
        raise InvalidInputError(f"samples must have shape {input_shape}, received {shape[1:]}")


def check_values(rows: HostArray, dtype: npt.DTypeLike, first_row: int = 0) -> None:
    """Reject values that are not finite, or out of range for the network's dtype.

    Parameters
    ----------
    rows : (n, features) array
    dtype : the network's
    first_row : int
        The number of the first row, for the message.
    """
    if rows.dtype.kind != "f":
        return
    if not np.isfinite(rows).all():
        bad = ~np.isfinite(rows)
        row, column = np.argwhere(bad)[0]
        raise InvalidInputError(
            f"x holds {int(bad.sum())} NaN or infinite values, the first in row {first_row + row}, feature {column}; "
            "remove or replace them"
        )
    limits = np.finfo(np.dtype(dtype))
    if rows.dtype.itemsize > limits.dtype.itemsize and max(rows.max(), -rows.min()) > limits.max:
        raise InvalidInputError(f"x holds values beyond the range of {limits.dtype}; scale it or use dtype='float64'")


def input_scale_of(dtype: np.dtype[Any], input_scale: float | None) -> float:
    """The factor that the gather applies: the network's, or by default 1/255 for bytes (images) and 1 otherwise."""
    if input_scale is not None:
        return input_scale
    return 1 / 255 if dtype == np.uint8 else 1.0


def scaled_rows(rows: HostArray, input_scale: float | None, dtype: npt.DTypeLike) -> HostArray:
    """Apply the gather's scaling and conversion on the host."""
    scale = input_scale_of(rows.dtype, input_scale)
    if scale == 1:
        return rows.astype(dtype, copy=False)
    scaled: HostArray = np.multiply(rows, scale, dtype=dtype)
    return scaled
