"""Checks of the arguments of plots: names, labels, points, images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError

__all__ = ["as_images", "check_finite", "check_labels", "check_points", "class_names", "plain"]

#: Larger labels are unlikely to be classes, and their names and colours would fill the memory.
_LARGEST_CLASS = 99_999


def plain(text: object) -> str:
    """Escape dollar signs, which matplotlib would interpret as the delimiters of a formula."""
    return str(text).replace("$", r"\$")


def class_names(classes: Sequence[str] | None, count: int) -> list[str]:
    """Names of at least `count` classes: those given, or 0, 1, 2, ..."""
    if classes is None:
        return [str(index) for index in range(count)]
    if isinstance(classes, str) or not hasattr(classes, "__iter__"):
        raise InvalidInputError(f"classes must be a list of names, received {classes!r}")
    names = [plain(name) for name in classes]
    if len(names) < count:
        raise InvalidInputError(f"there are {count} classes, received {len(names)} names; give a name for every class")
    return names


def check_labels(what: str, labels: Any, rows: int) -> npt.NDArray[np.int64]:
    """Class indices, one per row, as (rows,) int64; a (rows, 1) column is accepted, as in training."""
    array = as_host_array(what, labels)
    if array.shape not in ((rows,), (rows, 1)):
        hint = f"; convert scores with {what}.argmax(axis=1)" if array.ndim == 2 else ""
        raise InvalidInputError(f"{what} must be {rows} class indices, one per row, received shape {array.shape}{hint}")
    if (array < 0).any() or (array > _LARGEST_CLASS).any() or (array != np.floor(array)).any():
        raise InvalidInputError(
            f"{what} must be class indices 0, 1, 2, ..., received other numbers; number the classes"
        )
    return array.reshape(rows).astype(np.int64)


def check_points(x: Any) -> npt.NDArray[Any]:
    """(n, 2) finite points."""
    points = as_host_array("x", x)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise InvalidInputError(
            f"x must be points of shape (n, 2), received shape {points.shape}; choose two columns: x[:, [0, 1]]"
        )
    check_finite("the points", points)
    return points


def as_images(images: Any) -> npt.NDArray[Any]:
    """Square images as rows, (n, pixels), or images (n, height, width[, 1]), as (n, height, width) without a copy."""
    array = as_host_array("images", images)
    if array.size == 0:
        raise InvalidInputError(f"there are no images to draw: received shape {array.shape}")
    if array.ndim == 4 and array.shape[3] == 1:
        return array[..., 0]
    if array.ndim == 3:
        return array
    side = math.isqrt(array.shape[1]) if array.ndim == 2 else 0
    if array.ndim != 2 or side * side != array.shape[1]:
        raise InvalidInputError(
            f"images must be grey, (n, height, width) or (n, height, width, 1), or rows of square images, received "
            f"shape {array.shape}; reshape them to (n, height, width)"
        )
    return array.reshape(len(array), side, side)


def check_finite(what: str, array: npt.NDArray[Any]) -> None:
    """Refuse NaN and infinity, which cannot be drawn."""
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise InvalidInputError(f"{what} contain {bad} NaN or infinite values; remove or replace them")
