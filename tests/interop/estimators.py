"""Data and small estimators for the tests of MLPClassifier and MLPRegressor."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.preprocessing import scale

import nnbackend as nn

X, Y = load_iris(return_X_y=True)
X = scale(X)
#: A target for regressors.
LENGTHS = X[:, 0] * X[:, 1]

both = pytest.mark.parametrize("estimator", [nn.MLPClassifier, nn.MLPRegressor])


def make(estimator=nn.MLPClassifier, **parameters):
    """A small estimator on NumPy that trains for a few epochs."""
    small = {"hidden_layer_sizes": 6, "learning_rate_init": 0.02, "max_iter": 8, "random_state": 0, "backend": "numpy"}
    return estimator(**{**small, **parameters})


def same_weights(one, other) -> bool:
    """Whether two estimators have bit-identical weights."""
    pairs = zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
