"""Mean and variance of each feature of a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.data.scale import Images, InputScale
from nnbackend.errors import InvalidInputError

__all__ = ["checked_statistics", "feature_statistics"]

#: Elements that are converted to float64 at a time.
_ELEMENTS = 1 << 20


def feature_statistics(x: Any) -> tuple[HostArray, HostArray]:
    """Mean and (biased) variance of each feature, the last axis, in float64; the variance of a constant one is 1.

    Parameters
    ----------
    x : (n, ..., features) array_like
        uint8 images are scaled by 1/255, as networks scale them.

    Raises
    ------
    InvalidInputError
        There are no rows, or a value is NaN or infinite.
    """
    array = as_host_array("x", x)
    if array.ndim < 2 or array.size == 0:
        raise InvalidInputError(f"adapt takes rows of shape (n, ..., features), received shape {array.shape}")
    scale = InputScale(None, array.shape[1:]).of(array.dtype, isinstance(x, Images))
    rows = max(1, _ELEMENTS // max(1, array[:1].size))
    parts = [slice(start, start + rows) for start in range(0, len(array), rows)]
    axes, count = tuple(range(array.ndim - 1)), array.size // array.shape[-1]
    with np.errstate(all="ignore"):
        mean = sum(array[part].sum(axis=axes, dtype=np.float64) for part in parts) / count
        variance = sum(np.square(array[part] - mean).sum(axis=axes) for part in parts) / count
        first = array[(0,) * (array.ndim - 1)]
        # The mean of equal numbers may be rounded, and the variance is then tiny instead of 0.
        constant = np.logical_and.reduce([(array[part] == first).all(axis=axes) for part in parts])
    mean, variance = np.where(constant, first, mean), np.where(constant, 0.0, variance)
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise InvalidInputError("x holds NaN, infinite or very large values; remove or replace them")
    return mean * scale, _without_zeros(variance * scale**2)


def checked_statistics(mean: Any, variance: Any) -> tuple[HostArray, HostArray]:
    """Given statistics as (features,) float64; a variance of 0 becomes 1.

    Raises
    ------
    InvalidInputError
        They have different shapes or more than one axis, are not finite, or a variance is negative.
    """
    vectors = []
    for name, values in (("mean", mean), ("variance", variance)):
        array = as_host_array(name, values)
        if array.ndim != 1 or not np.isfinite(array).all():
            raise InvalidInputError(
                f"{name} must be finite numbers, one for each feature, received shape {array.shape}"
            )
        vectors.append(array.astype(np.float64))
    mean, variance = vectors
    if mean.shape != variance.shape:
        raise InvalidInputError(f"mean and variance must have one shape, received {mean.shape}, {variance.shape}")
    if (variance < 0).any():
        raise InvalidInputError(f"variance must not be negative, received {variance.min():g}")
    return mean, _without_zeros(variance)


def _without_zeros(variance: HostArray) -> HostArray:
    return np.where(variance == 0, 1.0, variance)
