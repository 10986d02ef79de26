"""Targets and sample weights: checked, and converted for a loss's operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.support.checks import count, number

__all__ = ["Targets", "combine_weights", "row_weights"]


#: Targets above this are hard to learn: the initial outputs are near 1, and the gradients as large as the targets.
_LARGE = 1000


@dataclass(eq=False, repr=False)
class Targets:
    """Targets ready for the device.

    Attributes
    ----------
    values : (n,) int32 labels, or (n, outputs) array of the network's dtype
    labels : (n,) int32 or None
        The class of each row, if targets are classes; needed for accuracy and class weights.
    accuracy_name : str or None
        Name of the fraction of correct predictions; see :meth:`nnbackend.losses.Loss.accuracy_name`.
    """

    values: HostArray
    labels: HostArray | None
    accuracy_name: str | None

    @classmethod
    def prepare(cls, loss: Loss, y: HostArray, rows: int, outputs: int, dtype: npt.DTypeLike) -> Targets:
        """Check the caller's targets and convert them for the loss's operation.

        Parameters
        ----------
        y : array of n labels, or (n, outputs) numbers
        rows : int
            How many there must be.
        outputs : int
            The network's number of outputs.
        dtype : the network's dtype

        Raises
        ------
        InvalidInputError
            Wrong number of rows or columns, labels out of range, values that are not finite.
        """
        if y.dtype == np.bool_:
            y = y.astype(np.int32)
        if y.ndim == 0:
            raise InvalidInputError(f"y must hold one target for each of {rows} rows, received the single value {y}")
        if len(y) != rows:
            raise InvalidInputError(f"x has {rows} rows but y has {len(y)}; give one target for each row")
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim not in (1, 2):
            raise InvalidInputError(f"y must be labels (n,) or values (n, {outputs}), received shape {y.shape}")
        if np.issubdtype(y.dtype, np.floating) and not np.isfinite(y).all():
            raise InvalidInputError(
                f"y holds NaN or infinity, first in row {_first_bad_row(y)} ({int((~np.isfinite(y)).sum()):,} values); "
                "remove such rows"
            )
        if y.ndim == 1 and (outputs > 1 or loss.takes_labels):
            return cls._from_labels(loss, y, outputs, dtype)
        return cls._from_values(loss, y, rows, outputs, dtype)

    def describe(self, outputs: int) -> str:
        """What they are, in words: "10 classes", "3 targets"."""
        if self.labels is not None:
            return f"{max(outputs, 2)} classes"
        return f"{outputs} target{'' if outputs == 1 else 's'}"

    @property
    def largest(self) -> float | None:
        """The largest absolute value, if it is large enough to make training hard."""
        if self.labels is not None or self.values.dtype.kind != "f":
            return None
        largest = float(max(self.values.max(), -self.values.min()))
        return largest if largest > _LARGE else None

    @classmethod
    def _from_labels(cls, loss: Loss, y: HostArray, outputs: int, dtype: npt.DTypeLike) -> Targets:
        if loss.takes_probabilities and y.dtype.kind == "f" and (y == np.trunc(y)).all():
            # Numbers of classes, as a column of a data frame with missing values in other rows has them.
            y = y.astype(np.int64)
        if not np.issubdtype(y.dtype, np.integer):
            raise InvalidInputError(
                f"labels must be integers in [0, {outputs}), received dtype {y.dtype} with values such as "
                f"{y[np.argmax(y != np.trunc(y))]:g}; give class numbers (n,), or values of shape (n, {outputs})"
            )
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= outputs:
            raise InvalidInputError(
                f"labels must be in [0, {outputs}) for a network with {outputs} outputs, received {low} to {high}"
            )
        labels = y.astype(np.int32)
        values = labels if loss.takes_labels else _one_hot(labels, outputs, dtype)
        return cls(values, labels, loss.accuracy_name(outputs, have_classes=True))

    @classmethod
    def _from_values(cls, loss: Loss, y: HostArray, rows: int, outputs: int, dtype: npt.DTypeLike) -> Targets:
        columns = 1 if y.ndim == 1 else y.shape[1]
        if columns != outputs:
            raise InvalidInputError(f"the network has {outputs} outputs but y has shape {y.shape}")
        with np.errstate(over="ignore"):
            values = y.reshape(rows, outputs).astype(dtype)
        if not np.isfinite(values).all():
            raise InvalidInputError(
                f"y holds values beyond the range of {values.dtype}; scale it or use dtype='float64'"
            )
        # One-hot rows define classes for every loss.
        one_hot = outputs > 1 and bool(((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all())
        labels = values.argmax(axis=1).astype(np.int32) if one_hot else None
        name = loss.accuracy_name(outputs, have_classes=one_hot)
        if loss.takes_probabilities and (values.min() < 0 or values.max() > 1):
            raise InvalidInputError(
                f"targets of {loss.name} must be in [0, 1], received {values.min():g} to {values.max():g}"
            )
        if loss.takes_labels:
            if labels is not None:
                return cls(labels, labels, name)
            sums = values.sum(axis=1)
            if not np.allclose(sums, 1, atol=1e-3):
                row = int(np.argmax(np.abs(sums - 1)))
                raise InvalidInputError(f"rows of class probabilities must sum to 1, row {row} sums to {sums[row]:g}")
            return cls(values, values.argmax(axis=1).astype(np.int32), name)
        if loss.takes_probabilities and outputs == 1:
            labels = (values[:, 0] > 0.5).astype(np.int32)
        return cls(values, labels, name)


def _one_hot(labels: HostArray, outputs: int, dtype: npt.DTypeLike) -> HostArray:
    values = np.zeros((len(labels), outputs), dtype)
    values[np.arange(len(labels)), labels] = 1
    return values


def combine_weights(
    targets: Targets,
    sample_weight: Any,
    class_weight: Any,
    outputs: int,
    dtype: npt.DTypeLike,
    mean: Callable[[HostArray], float] = np.mean,
) -> HostArray | None:
    """One weight per row, scaled to a mean of 1, or None if all weights are equal.

    The mean of 1 makes the loss of an epoch a weighted mean, so that doubling all weights changes nothing.

    Parameters
    ----------
    sample_weight : (n,) array_like or None
    class_weight : dict from label to weight, or (outputs,) array_like, or None
    mean : callable
        Computes the mean weight over all ranks, if other ranks have more rows.

    Raises
    ------
    InvalidInputError
        Wrong length, negative or not finite, all zero, or class weights for targets that have no classes.
    """
    if sample_weight is None and class_weight is None:
        return None
    rows = len(targets.values)
    weights = np.ones(rows)
    if sample_weight is not None:
        weights = weights * row_weights(sample_weight, rows)
    if class_weight is not None:
        if targets.labels is None:
            raise InvalidInputError("class_weight needs integer or one-hot labels; use sample_weight for other targets")
        weights = weights * _class_weights(class_weight, max(outputs, 2))[targets.labels]
    average = mean(weights)
    if average == 0:
        raise InvalidInputError("all weights are zero; at least one row must count")
    scaled: HostArray = (weights / average).astype(dtype)
    return scaled


def row_weights(sample_weight: Any, rows: int) -> HostArray:
    """Weights of rows, in float64, or InvalidInputError."""
    given = _real_numbers("sample_weight", sample_weight)
    if given.shape != (rows,):
        raise InvalidInputError(f"sample_weight must have shape ({rows},), received {given.shape}")
    return _not_negative(given)


def _not_negative(weights: HostArray) -> HostArray:
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise InvalidInputError("weights must be finite and not negative")
    return weights


def _class_weights(class_weight: Any, classes: int) -> HostArray:
    if not isinstance(class_weight, Mapping):
        values = _real_numbers("class_weight", class_weight)
        if values.shape != (classes,):
            raise InvalidInputError(f"class_weight must have one weight for each of {classes} classes")
        return _not_negative(values)
    values = np.ones(classes)
    for label, weight in class_weight.items():
        if count("a class in class_weight", label) >= classes:
            raise InvalidInputError(f"class_weight names class {label!r}; classes are 0 to {classes - 1}")
        values[label] = number(f"the weight of class {label}", weight, low=0)
    return values


def _real_numbers(what: str, values: Any) -> HostArray:
    return as_host_array(what, values).astype(np.float64)


def _first_bad_row(y: HostArray) -> int:
    return int(np.argmax(~np.isfinite(y.reshape(len(y), -1)).all(axis=1)))
