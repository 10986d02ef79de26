"""Figures about predictions, on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError

__all__ = ["accuracy", "confusion_matrix"]

Labels = npt.NDArray[np.int64]


def accuracy(labels: Any, predicted: Any) -> float:
    """The share of rows whose predicted class is the true one.

    Parameters
    ----------
    labels, predicted : (n,) array_like of int
    """
    true, guess = _pair(labels, predicted)
    return float((true == guess).mean())


def confusion_matrix(labels: Any, predicted: Any, classes: int) -> Labels:
    """How often each class was taken for each.

    Parameters
    ----------
    labels, predicted : (n,) array_like of int
        In [0, classes).
    classes : int

    Returns
    -------
    (classes, classes) int64
        ``[i, j]`` counts the rows of class i that were predicted as class j.
    """
    true, guess = _pair(labels, predicted)
    if min(true.min(), guess.min()) < 0 or max(true.max(), guess.max()) >= classes:
        raise InvalidInputError(f"labels and predictions must be in [0, {classes})")
    return np.bincount(true * classes + guess, minlength=classes * classes).reshape(classes, classes)


def _pair(labels: Any, predicted: Any) -> tuple[Labels, Labels]:
    true, guess = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    if true.shape != guess.shape or true.ndim != 1 or true.size == 0:
        raise InvalidInputError(
            f"labels and predictions must be two lists of one length, received {true.shape} and {guess.shape}"
        )
    return true, guess
