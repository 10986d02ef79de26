"""Accuracy and confusion matrix of class indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError

__all__ = ["accuracy", "classes_of", "confusion_matrix"]

Labels = npt.NDArray[np.int64]


def accuracy(labels: Any, predicted: Any) -> float:
    """The fraction of rows whose predicted class is the true class.

    Parameters
    ----------
    labels, predicted : (n,) array_like of int
        Class indices.

    Raises
    ------
    InvalidInputError
        They are not whole numbers, or differ in length.
    """
    true, guess = _pair(labels, predicted)
    return float((true == guess).mean())


def confusion_matrix(labels: Any, predicted: Any, classes: int) -> Labels:
    """Count the rows for each pair of true and predicted class.

    Parameters
    ----------
    labels, predicted : (n,) array_like of int
        Class indices in [0, classes).
    classes : int

    Returns
    -------
    (classes, classes) int64
        Element ``[i, j]`` counts the rows of class i that were predicted as class j.

    Raises
    ------
    InvalidInputError
        They are not whole numbers in this range, or differ in length.
    """
    true, guess = _pair(labels, predicted)
    if min(true.min(), guess.min()) < 0 or max(true.max(), guess.max()) >= classes:
        raise InvalidInputError(f"labels and predictions must be in [0, {classes})")
    return np.bincount(true * classes + guess, minlength=classes * classes).reshape(classes, classes)


def _pair(labels: Any, predicted: Any) -> tuple[Labels, Labels]:
    true, guess = _indices("labels", labels), _indices("predictions", predicted)
    if true.shape != guess.shape or true.ndim != 1 or true.size == 0:
        raise InvalidInputError(
            f"labels and predictions must be (n,) arrays of the same length, received {true.shape} and {guess.shape}"
        )
    return true, guess


def _indices(name: str, values: Any) -> Labels:
    """Class indices as integers; conversion alone would cut off the fractions of probabilities."""
    array = as_host_array(name, values)
    with np.errstate(all="ignore"):
        indices: Labels = array.astype(np.int64)
    if not (indices == array).all():
        raise InvalidInputError(
            f"{name} must be class indices, which are whole numbers, received {array[indices != array][0]:g}; convert "
            "probabilities with argmax(axis=1), or with > 0.5 for two classes"
        )
    return indices


def classes_of(scores: npt.NDArray[Any], several: bool) -> npt.NDArray[Any]:
    """The classes of every row, as :meth:`NetworkInference.predict_classes` returns them.

    Parameters
    ----------
    scores : (n, *outputs) array
        Predictions.
    several : bool
        Whether a row may have any number of labels.
    """
    scores = scores.reshape(len(scores), -1)
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0.5).astype(np.int64)
    if several:
        return (scores > 0.5).astype(np.int64)
    classes: npt.NDArray[Any] = scores.argmax(axis=1)
    return classes
