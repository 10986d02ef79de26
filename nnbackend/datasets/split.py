"""Split rows into a training and a test set, reproducibly across NumPy versions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["stratified_split"]


def stratified_split(
    labels: NDArray[Any], test_fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw the same fraction of every class for the test set.

    Parameters
    ----------
    labels : ndarray of integers, shape (rows,)
    test_fraction : float
        Between 0 and 1; the count is rounded class by class.
    seed : int
        The same seed gives the same split.

    Returns
    -------
    train_rows, test_rows : ndarray of intp
        Row numbers, shuffled; every row is in exactly one of them.
    """
    # RandomState instead of Generator: NumPy guarantees that its stream never changes (NEP 19), so results remain
    # comparable across NumPy releases.
    order = np.random.RandomState(seed).permutation(len(labels))
    in_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        in_test[members[: round(test_fraction * len(members))]] = True
    return order[~in_test[order]], order[in_test[order]]
