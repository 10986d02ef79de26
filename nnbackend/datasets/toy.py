"""Small data sets for teaching, generated here. Inputs are float64, so the numbers are exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.datasets.dataset import Dataset
from nnbackend.errors import InvalidInputError

__all__ = ["circle", "logical_and", "logical_not", "logical_or", "logical_xor", "people", "ten_points"]

_CIRCLE_TEST_POINTS = 10_000
_PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))
_TRUTH = ("false", "true")


def circle(n: int = 1_000, seed: int = 0) -> Dataset:
    """Points drawn uniformly from the square [-2, 2]^2, classified as inside or outside the unit circle.

    About 80 % are outside (1 - pi / 16), so an accuracy up to that means that a network has learned nothing.

    Parameters
    ----------
    n : int
        Number of training points, at least 1. The test set always has 10,000 other points.
    seed : int
        Not negative. The same seed gives the same points.

    Returns
    -------
    Dataset
        x of shape (n, 2); label 1 for ``x[0]**2 + x[1]**2 > 1``, else 0.

    Raises
    ------
    InvalidInputError
        `n` or `seed` is not an integer or too small.
    """
    for option, value, least in (("n", n, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InvalidInputError(f"data set 'circle': {option} must be an integer >= {least}, got {value!r}")
    # Separate random streams, so that the test points do not depend on n and differ from the training points.
    x_train = np.random.default_rng([seed, 0]).uniform(-2, 2, size=(n, 2))
    x_test = np.random.default_rng([seed, 1]).uniform(-2, 2, size=(_CIRCLE_TEST_POINTS, 2))
    return Dataset(
        name="circle",
        x_train=x_train,
        y_train=_outside_unit_circle(x_train),
        x_test=x_test,
        y_test=_outside_unit_circle(x_test),
        classes=("inside", "outside"),
        input_shape=2,
        source=f"points drawn with seed {seed}",
    )


def logical_and() -> Dataset:
    """Truth table of AND; the test set is the training set."""
    return _table("and", _PAIRS, (0, 0, 0, 1), _TRUTH, "a truth table")


def logical_or() -> Dataset:
    """Truth table of OR; the test set is the training set."""
    return _table("or", _PAIRS, (0, 1, 1, 1), _TRUTH, "a truth table")


def logical_not() -> Dataset:
    """Truth table of NOT; the test set is the training set."""
    return _table("not", ((0,), (1,)), (1, 0), _TRUTH, "a truth table")


def logical_xor() -> Dataset:
    """Truth table of XOR; the test set is the training set."""
    return _table("xor", _PAIRS, (0, 1, 1, 0), _TRUTH, "a truth table")


def ten_points() -> Dataset:
    """Ten points in the plane, in two classes; the test set is the training set.

    Source: J. Brownlee, "How to Code a Neural Network with Backpropagation In Python (from scratch)",
    machinelearningmastery.com.
    """
    points = (
        (2.7810836, 2.550537003),
        (1.465489372, 2.362125076),
        (3.396561688, 4.400293529),
        (1.38807019, 1.850220317),
        (3.06407232, 3.005305973),
        (7.627531214, 2.759262235),
        (5.332441248, 2.088626775),
        (6.922596716, 1.77106367),
        (8.675418651, -0.242068655),
        (7.673756466, 3.508563011),
    )
    return _table("ten-points", points, (0, 0, 0, 0, 0, 1, 1, 1, 1, 1), ("0", "1"), "a table of ten points")


def people() -> Dataset:
    """Weight (lb) and height (in) of Alice, Bob, Charlie and Diana, both shifted; the test set is the training set.

    Source: V. Zhou, "Machine Learning for Beginners: An Introduction to Neural Networks", victorzhou.com.
    """
    points = ((-2, -1), (25, 6), (17, 4), (-15, -6))
    return _table("people", points, (1, 0, 0, 1), ("male", "female"), "a table of four people")


def _outside_unit_circle(points: NDArray[np.float64]) -> NDArray[np.int32]:
    squares: NDArray[np.float64] = np.square(points)
    return (squares[:, 0] + squares[:, 1] > 1).astype(np.int32)


def _table(
    name: str, rows: Sequence[Sequence[float]], labels: Sequence[int], classes: tuple[str, ...], source: str
) -> Dataset:
    x: NDArray[Any] = np.array(rows, np.float64)
    y = np.array(labels, np.int32)
    return Dataset(
        name=name,
        x_train=x,
        y_train=y,
        x_test=x.copy(),
        y_test=y.copy(),
        classes=classes,
        input_shape=x.shape[1],
        source=source,
    )
