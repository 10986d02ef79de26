"""Converts a caller's data to checked host arrays, once, so that training steps need no checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.data.stored import check_claim, is_stored, reading
from nnbackend.errors import InvalidInputError, shown

__all__ = [
    "as_host_array",
    "check_features",
    "check_mask",
    "check_not_class_names",
    "check_scaled",
    "check_shape",
    "check_values",
    "is_sparse",
    "scaled_rows",
]

_DLPACK_CPU = 1

#: NumPy's kinds of truth values, integers and floating-point numbers.
_NUMBERS = "buif"


def as_host_array(what: str, value: Any) -> HostArray:
    """`value` as a NumPy array in host memory, without a copy if possible.

    Parameters
    ----------
    what : str
        Its name in error messages: "x".
    value : NumPy array, array of another library, DataFrame, nested lists of numbers
        Subclasses of NumPy's array become plain arrays.

    Raises
    ------
    InvalidInputError
        It contains text, other objects or missing values, has masked values, is sparse or ragged, or is on another
        library's device; the message says how to convert it.
    DataError
        It is in a file that cannot be read, or that holds almost nothing of it.
    """
    if type(value) is np.ndarray and value.dtype.kind in _NUMBERS:
        return value
    if value is None:
        raise InvalidInputError(f"{what} is None; give an array of numbers")
    if is_sparse(value):
        raise InvalidInputError(
            f"{what} is a sparse matrix ({type(value).__name__} of shape {value.shape}); give {what}.toarray()"
        )
    if not isinstance(value, np.ndarray):
        value = _from_another_library(what, value)
    check_mask(what, value)
    # A subclass may index and multiply in its own way, as matrices do.
    array: HostArray = np.asarray(value)
    if array.dtype == object:
        array = _from_objects(what, array)
    _check_numbers(what, array)
    return array


def check_mask(what: str, value: Any) -> None:
    """Reject an array with masked values: what is behind the mask is not part of the data.

    Raises
    ------
    InvalidInputError
    """
    if isinstance(value, np.ma.MaskedArray) and (masked := int(np.ma.getmaskarray(value).sum())):
        raise InvalidInputError(
            f"{what} has {masked:,} masked value{'' if masked == 1 else 's'} of {value.size:,}; fill them in, for "
            f"example with {what}.filled(0), or remove those rows"
        )


def check_not_class_names(y: Any, classifier: str) -> None:
    """Refuse the names of classes as targets of a regressor.

    Parameters
    ----------
    y : array_like
    classifier : str
        Name of the estimator for classes.

    Raises
    ------
    InvalidInputError
    """
    if isinstance(y, np.ndarray) and y.dtype.kind in _NUMBERS:
        return
    try:
        array = np.asarray(y)
    except ValueError:
        # Other checks say what it is.
        return
    for item in array.reshape(-1) if array.dtype.kind in "OUT" else ():
        if isinstance(item, str):
            try:
                float(item)
            except ValueError:
                raise InvalidInputError(
                    f"y holds text such as {shown(str(item))}, and a regressor predicts numbers; for classes use "
                    f"nnbackend.{classifier}"
                ) from None


def is_sparse(value: Any) -> bool:
    """Whether `value` is a sparse matrix or array of SciPy."""
    return hasattr(value, "tocsr") and hasattr(value, "toarray")


def _from_objects(what: str, array: HostArray) -> HostArray:
    # Imported here because most programs have no objects in arrays.
    from nnbackend.data.frames import from_objects

    if array.ndim == 0:
        hint = "; make a list of it" if isinstance(array.item(), Iterator) else ""
        raise InvalidInputError(f"{what} must be an array of numbers, received {shown(array.item())}{hint}")
    return from_objects(what, array)


def _from_another_library(what: str, value: Any) -> Any:
    if type(value).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow") or hasattr(value, "columns"):
        from nnbackend.data.frames import from_table, is_table

        if is_table(value):
            return _read(what, value, partial(from_table, what))
    if isinstance(value, set | frozenset | dict | str | bytes):
        raise InvalidInputError(
            f"{what} is a {type(value).__name__}, received {shown(value)}; give an array of numbers"
        )
    if is_stored(value):
        with reading(what, value):
            check_claim(what, value)
            return value[...]
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if hasattr(value, "__dlpack_device__") and hasattr(value, "__dlpack__"):
        if type(value).__module__.partition(".")[0] == "cupy":
            return value.get()
        device = _read(what, value, lambda array: array.__dlpack_device__())
        if int(device[0]) != _DLPACK_CPU:
            raise InvalidInputError(
                f"{what} is a {kind} on another device (DLPack device {tuple(int(part) for part in device)}); "
                f"copy it to the host first, for example with {what}.cpu() or numpy.asarray({what})"
            )
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError):
            pass  # Such as a dtype unknown to DLPack, or a tensor that tracks gradients: numpy.asarray says which.
    return _read(what, value, np.asarray)


def _read(what: str, value: Any, read: Callable[[Any], HostArray]) -> HostArray:
    """The result of `read`, or one error that says what to do."""
    try:
        return read(value)
    except InvalidInputError:
        raise
    except Exception as error:
        # Libraries raise different errors here.
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        reason = "its rows have different lengths" if "inhomogeneous" in str(error) else error
        raise InvalidInputError(
            f"{what} is a {kind} that NumPy cannot read ({reason}); give an array of numbers"
        ) from error


def check_features(
    x: Any, input_shape: tuple[int, ...], dtype: npt.DTypeLike, names: Sequence[Any] | None = None
) -> HostArray:
    """The rows of `x` as a contiguous (n, features) array of uint8 or the network's dtype.

    Parameters
    ----------
    x : array_like
    input_shape : tuple of int
    dtype : the network's
    names : sequence, optional
        Names of the features in messages.

    Raises
    ------
    InvalidInputError
        No rows, another number of features than the network's, NaN or infinity.
    """
    array = as_host_array("x", x)
    check_shape(array.shape, array.dtype, input_shape)
    rows = array.reshape(len(array), math.prod(input_shape))
    check_values(rows, dtype, names=names)
    if rows.dtype == np.uint8:
        return np.ascontiguousarray(rows)
    return np.ascontiguousarray(rows, dtype=dtype)


_NOT_NUMBERS = {
    "M": ("dates", "derive numbers from it, such as the day of the year"),
    "m": ("durations", "convert it to a unit, for example with {what} / numpy.timedelta64(1, 's')"),
    "c": ("complex numbers", "give real and imaginary parts as separate columns"),
    "V": ("records", "convert it with numpy.lib.recfunctions.structured_to_unstructured({what})"),
}


def _check_numbers(what: str, array: HostArray) -> None:
    if array.dtype.kind in _NUMBERS:
        return
    kind, remedy = _NOT_NUMBERS.get(array.dtype.kind, ("text", "convert it to numbers"))
    if kind == "text":
        example = shown(array.reshape(-1)[0].item()) if array.size else "none"
        kind = f"text such as {example}"
        try:
            array.astype(np.float64)
        except ValueError:
            if what == "y":
                remedy = "for class names, number them: names, y = numpy.unique(y, return_inverse=True)"
        else:
            remedy = "convert it with {what}.astype(float)" if what != "y" else "convert it with y.astype(int)"
    raise InvalidInputError(
        f"{what} must hold numbers, received dtype {array.dtype}: {kind}; {remedy.format(what=what)}"
    )


def check_shape(shape: tuple[int, ...], dtype: np.dtype[Any], input_shape: tuple[int, ...]) -> None:
    """Reject an `x` without rows, with a wrong number of features, or without numbers."""
    if dtype.kind not in _NUMBERS:
        _check_numbers("x", np.empty(0, dtype))
    features = math.prod(input_shape)
    if not shape:
        raise InvalidInputError("x is a single number; give an array of rows")
    if shape[0] == 0:
        raise InvalidInputError(f"x is empty: received shape {shape}; give at least one row")
    if len(shape) == 1 or math.prod(shape[1:]) != features:
        expected = " x ".join(str(size) for size in input_shape)
        plural = "" if features == 1 else "s"
        hint = _single_sample(shape, input_shape) or _channels(shape[1:], input_shape)
        raise InvalidInputError(f"x must have {expected} feature{plural} a row, received shape {shape}{hint}")
    if len(shape) > 2 and len(input_shape) > 1 and shape[1:] != input_shape:
        hint = _channels(shape[1:], input_shape)
        raise InvalidInputError(f"samples must have shape {input_shape}, received {shape[1:]}{hint}")


def _single_sample(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> str:
    """What to do if `shape` is that of one sample instead of many, or of one feature."""
    if len(shape) == 1 and input_shape == (1,):
        return "; for one feature give a column: x[:, None] of an array, or a list of lists"
    if math.prod(shape) != math.prod(input_shape):
        return ""
    if len(input_shape) > 1 and shape != input_shape:
        if shape == input_shape[:-1]:
            return "; for a single sample without a channel axis give x[None, ..., None]"
        if shape == (input_shape[-1], *input_shape[:-1]):
            return "; channels come last, so for a single sample with channels first give np.moveaxis(x, 0, -1)[None]"
    return "; for a single sample give x[None]"


def _channels(sample: tuple[int, ...], input_shape: tuple[int, ...]) -> str:
    """What to do if a sample lacks its axis of channels, or if they come first."""
    what = {2: "sequences", 3: "images"}.get(len(input_shape))
    if what is None:
        return ""
    if (*sample, 1) == input_shape:
        return "; x[..., None] adds the axis of the single channel"
    if sample == (input_shape[-1], *input_shape[:-1]):
        return f"; {what} are channels last here: if those of x are channels first, give np.moveaxis(x, 1, -1)"
    if sample == (*input_shape[1:], input_shape[0]):
        return f"; {what} are channels last here: if {input_shape} is channels first, make it input_shape={sample}"
    return ""


def check_values(rows: HostArray, dtype: npt.DTypeLike, first_row: int = 0, names: Sequence[Any] | None = None) -> None:
    """Reject values that are not finite, or out of range for the network's dtype.

    Parameters
    ----------
    rows : (n, features) array
    dtype : the network's
    first_row : int
        The number of the first row, for the message.
    names : sequence, optional
        Names of the features in messages.
    """
    if rows.dtype.kind != "f":
        return
    if not np.isfinite(rows).all():
        raise _not_finite(~np.isfinite(rows), first_row, names)
    limits = np.finfo(np.dtype(dtype))
    if rows.dtype.itemsize > limits.dtype.itemsize and max(rows.max(), -rows.min()) > limits.max:
        raise InvalidInputError(f"x holds values beyond the range of {limits.dtype}; scale it or use dtype='float64'")


def _not_finite(bad: HostArray, first_row: int, names: Sequence[Any] | None) -> InvalidInputError:
    row, column = np.argwhere(bad)[0]
    where, each = f"feature {column}", ""
    if names is not None and len(names) == bad.shape[1]:
        where = f"column {names[column]!r}"
        counts = bad.sum(axis=0)
        listed = [f"{counts[place]:,} in column {names[place]!r}" for place in np.flatnonzero(counts)[:5]]
        each = f" ({', '.join(listed)})"
    return InvalidInputError(
        f"x holds {int(bad.sum())} NaN or infinite values{each}, the first in row {first_row + row}, {where}; "
        "remove or replace them"
    )


def check_scaled(extent: tuple[float, float], scale: float, dtype: npt.DTypeLike) -> None:
    """Reject inputs whose products with the scale overflow.

    Parameters
    ----------
    extent : (low, high)
        Smallest and largest input.
    scale : float
    dtype : the network's
    """
    most = float(np.finfo(np.dtype(dtype)).max)
    largest = max(abs(extent[0]), abs(extent[1]))
    if largest > most / max(1.0, abs(scale)):
        raise InvalidInputError(
            f"x holds values up to {largest:g}, which input_scale={scale:g} takes beyond the range of "
            f"{np.dtype(dtype).name}; give a smaller input_scale"
        )


def scaled_rows(rows: HostArray, scale: float, dtype: npt.DTypeLike) -> HostArray:
    """Apply the gather's scaling and conversion on the host."""
    if scale == 1:
        return rows.astype(dtype, copy=False)
    scaled: HostArray = np.multiply(rows, scale, dtype=dtype)
    return scaled
