"""Checks of simple arguments: numbers, shapes, dtypes, seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.support.attributes import Guarded

#: The dtypes of networks.
REAL_DTYPES = ("float32", "float64")

#: Largest count or size: they are stored in signed 64-bit integers.
_MOST = 2**63 - 1

#: Most dimensions of a sample. NumPy's arrays have at most 64, and arrays of samples need some more than a sample.
_MOST_DIMENSIONS = 32

__all__ = [
    "REAL_DTYPES",
    "Plain",
    "above_zero",
    "count",
    "flag",
    "number",
    "positive_integer",
    "real_dtype",
    "sample_shape",
    "seed_number",
    "text",
]


def positive_integer(what: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    return _whole(what, value, 1)


def count(what: str, value: Any) -> int:
    """`value` as an int of at least 0."""
    return _whole(what, value, 0)


def _whole(what: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidInputError(f"{what} must be a whole number of at least {least}, received {shown(value)}")
    if value > _MOST:
        raise InvalidInputError(f"{what} must be below 2**63, received {shown(value)}")
    return int(value)


def above_zero(what: str, value: Any) -> float:
    """`value` as a finite float above 0."""
    if number(what, value) <= 0:
        raise InvalidInputError(f"{what} must be above 0, received {shown(value)}")
    return float(value)


def number(what: str, value: Any, low: float = -math.inf, high: float = math.inf, below: bool = False) -> float:
    """`value` as a finite float with ``low <= value <= high`` (``< high`` if `below`)."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not _finite(value):
        raise InvalidInputError(f"{what} must be a finite number, received {shown(value)}")
    if not low <= value <= high or (below and value == high):
        bounds = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}{')' if below else ']'}"
        raise InvalidInputError(f"{what} must be {bounds}, received {shown(value)}")
    return float(value)


def text(what: str, value: Any) -> str:
    """`value` as text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{what} must be text, received {shown(value)}")
    return value


def flag(what: str, value: Any) -> bool:
    """`value`, True, False, 0 or 1, as a bool."""
    if not isinstance(value, bool | np.bool_ | int | np.integer) or value not in (0, 1):
        raise InvalidInputError(f"{what} must be True or False, received {shown(value)}")
    return bool(value)


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer larger than any float
        return False


def sample_shape(input_shape: Any, what: str = "input_shape") -> tuple[int, ...]:
    """The shape of a sample, given as a number of features or as a tuple; `what` is its name in messages."""
    sizes = [input_shape] if isinstance(input_shape, int | np.integer) else input_shape
    try:
        shape = tuple(positive_integer(what, size) for size in sizes)
    except TypeError:
        received = shown(input_shape)
        raise InvalidInputError(f"{what} must be a number or a tuple of numbers, received {received}") from None
    if not 1 <= len(shape) <= _MOST_DIMENSIONS:
        raise InvalidInputError(f"{what} must have 1 to {_MOST_DIMENSIONS} dimensions, received {shown(shape)}")
    if math.prod(shape) > _MOST // 8:
        raise InvalidInputError(f"a sample of shape {shape} is larger than any memory")
    return shape


def real_dtype(dtype: Any) -> np.dtype[Any]:
    """float32 or float64, by name or type."""
    try:
        # Convert by name to get the native byte order; np.dtype(None) would be float64.
        checked: np.dtype[Any] = np.dtype(np.dtype("O" if dtype is None else dtype).name)
    except (TypeError, ValueError):
        # NumPy raises ValueError for characters that cannot be encoded.
        raise UnknownNameError("dtype", dtype, REAL_DTYPES) from None
    if checked.name not in REAL_DTYPES:
        raise UnknownNameError("dtype", checked.name, REAL_DTYPES)
    return checked


def seed_number(seed: Any) -> int:
    """`seed` as an int that fits the key of the Philox generator."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InvalidInputError(f"seed must be a whole number, 0 <= seed < 2**63, received {shown(seed)}")
    return int(seed)


class Plain(Guarded):
    """Base class with a repr that shows the constructor call; instances are equal if their reprs are.

    It replaces `dataclass`, which would take half a millisecond at import for each of many small classes.
    """

    def _change(self, name: str, value: Any) -> Any:
        raise self._refusal(name)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in vars(self).items() if not key.startswith("_"))
        return f"{type(self).__name__}({shown})"
