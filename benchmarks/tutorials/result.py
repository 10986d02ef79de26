"""The result of every baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Result", "accuracy", "cross_entropy", "one_hot"]


@dataclass(frozen=True)
class Result:
    """The results of a training run.

    Attributes
    ----------
    figures : dict of str to float
        Accuracies are fractions from 0 to 1; "accuracy" is on the test set, which for tables is the training set.
    seconds : float
        Wall time of training, without loading, preparation and the final test.
    """

    figures: dict[str, float]
    seconds: float


def accuracy(predicted: ArrayLike, labels: ArrayLike) -> float:
    """The share of correctly predicted labels."""
    return float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def cross_entropy(probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """The mean over rows of -log(the probability of the row's class)."""
    rows = len(labels)
    return float(-1 / rows * np.sum(np.log(probabilities[np.arange(rows), labels])))


def one_hot(labels: ArrayLike, classes: int) -> NDArray[np.float64]:
    """One-hot rows."""
    return np.eye(classes)[np.asarray(labels)]
