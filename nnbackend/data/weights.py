"""Weights of rows and classes: checked, and combined to one weight for each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.data.targets import Targets
from nnbackend.errors import InvalidInputError
from nnbackend.support.checks import count, number

__all__ = ["check_not_negative", "class_weights", "combine_weights", "multiply_weights", "row_weights", "without_index"]

#: Takes a value of this rank and returns the values of all ranks.
Exchange = Callable[[Any], list[Any]]


def only_here(value: Any) -> list[Any]:
    """The exchange of a single rank, or of ranks that all have the same rows."""
    return [value]


def combine_weights(
    targets: Targets,
    sample_weight: Any,
    class_weight: Any,
    outputs: int,
    dtype: npt.DTypeLike,
    exchange: Exchange = only_here,
) -> HostArray | None:
    """One weight per row, scaled to a mean of 1, or None if there are no weights.

    The mean of 1 makes the loss of an epoch a weighted mean, so that multiplying all weights changes nothing.

    Parameters
    ----------
    targets : Targets
        Of n rows.
    sample_weight : (n,) array_like or None
    class_weight : dict, (classes,) array_like, "balanced" or None
        As for `class_weights`.
    outputs : int
        The network's.
    dtype : numpy dtype
        Of the result.
    exchange : callable
        For ranks that have rows of their own: the mean is that of the rows of all ranks.

    Returns
    -------
    (n,) array or None

    Raises
    ------
    InvalidInputError
        Wrong length, negative or not finite, all zero, or class weights for targets that have no classes.
    """
    if sample_weight is None and class_weight is None:
        return None
    rows = len(targets.values)
    factors = [] if sample_weight is None else [row_weights(sample_weight, rows)]
    if class_weight is not None:
        factors.append(class_weights(class_weight, targets, outputs, exchange)[targets.labels])
    weights, exponent = multiply_weights(factors)
    parts = exchange((float(weights.sum()), rows, exponent))
    highest = max((power for total, _, power in parts if total > 0), default=None)
    if highest is None:
        raise InvalidInputError("all weights are zero; at least one row must count")
    total = sum(np.ldexp(total, power - highest) for total, _, power in parts if total > 0)
    with np.errstate(over="ignore", under="ignore"):
        # Infinite if the weights of all rows of this rank are negligible.
        average = np.ldexp(total / sum(rows for _, rows, _ in parts), highest - exponent)
        scaled: HostArray = (weights / average).astype(dtype)
    return scaled


def multiply_weights(factors: list[HostArray]) -> tuple[HostArray, int]:
    """The product of weights that may be as large or as small as floats can be.

    Returns
    -------
    product : (n,) float64
        At most 1.
    exponent : int
        The weights are ``product * 2**exponent``. Powers of two cause no rounding.
    """
    counts = np.logical_and.reduce([factor > 0 for factor in factors])
    product, exponent = counts.astype(np.float64), 0
    with np.errstate(under="ignore"):
        for factor in factors:
            power = int(np.frexp(factor.max(where=counts, initial=0))[1])
            product *= np.ldexp(np.where(counts, factor, 0), -power)
            exponent += power
    return product, exponent


def row_weights(sample_weight: Any, rows: int) -> HostArray:
    """The caller's weights of rows, checked, in float64.

    Raises
    ------
    InvalidInputError
        Wrong shape, masked values, or weights that are negative or not finite.
    """
    given = _real_numbers("sample_weight", sample_weight)
    if given.shape != (rows,):
        raise InvalidInputError(f"sample_weight must have shape ({rows},), received {given.shape}")
    check_not_negative("sample_weight", given, "row")
    return given


def check_not_negative(what: str, weights: HostArray, place: str) -> None:
    """Reject weights that are negative or not finite.

    Parameters
    ----------
    what : str
        Their name in error messages.
    weights : (n,) float64
    place : str
        What a weight belongs to: "row".
    """
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        first = int(np.argmax(bad))
        raise InvalidInputError(
            f"{what} must be finite and not negative, received {weights[first]:g} for {place} {first}"
        )


def class_weights(class_weight: Any, targets: Targets, outputs: int, exchange: Exchange = only_here) -> HostArray:
    """The caller's weights of classes, one for each class, in float64.

    Parameters
    ----------
    class_weight : dict or Series from label to weight, (classes,) array_like, or "balanced"
        Classes missing in a dict have weight 1. "balanced" gives all classes that occur the same total weight.
    targets : Targets
    outputs : int
        The network's.
    exchange : callable
        For ranks that have rows of their own.

    Raises
    ------
    InvalidInputError
        The targets are not classes, a class is unknown, or a weight is negative, not finite, or all are zero.
    """
    classes = max(outputs, 2)
    if targets.labels is None:
        raise InvalidInputError("class_weight needs integer or one-hot labels; use sample_weight for other targets")
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise InvalidInputError(
                "class_weight must be 'balanced', a dict from class to weight, or one weight for each class, received "
                f"{class_weight!r}"
            )
        counts = np.sum(exchange(np.bincount(targets.labels, minlength=classes)), axis=0)
        balanced: HostArray = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return balanced
    class_weight = without_index(class_weight)
    if isinstance(class_weight, Mapping):
        values = np.ones(classes)
        for label, weight in class_weight.items():
            if count("a class in class_weight", label) >= classes:
                raise InvalidInputError(f"class_weight names class {label!r}; classes are 0 to {classes - 1}")
            values[label] = number(f"the weight of class {label}", weight, low=0)
    else:
        values = _real_numbers("class_weight", class_weight)
        if values.shape != (classes,):
            raise InvalidInputError(
                f"class_weight must have one weight for each of {classes} classes, received shape {values.shape}"
            )
    check_not_negative("class_weight", values, "class")
    if not values.any():
        raise InvalidInputError("all of class_weight is zero; at least one class must count")
    return values


def without_index(class_weight: Any) -> Any:
    """A pandas Series as a dict, because its index has the classes, often in the order of their frequency."""
    return (
        class_weight.to_dict() if hasattr(class_weight, "index") and hasattr(class_weight, "to_dict") else class_weight
    )


def _real_numbers(what: str, values: Any) -> HostArray:
    if isinstance(values, np.ma.MaskedArray) and (masked := int(np.ma.getmaskarray(values).sum())):
        raise InvalidInputError(
            f"{what} has {masked} masked values; leave those rows out, or give them a weight with {what}.filled(0)"
        )
    return np.asarray(as_host_array(what, values)).astype(np.float64)
