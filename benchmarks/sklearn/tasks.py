"""The data sets and the parameters of both estimators; other parameters have their defaults."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale

__all__ = ["TASKS", "Data", "Task", "data_of"]


@dataclass(frozen=True)
class Task:
    """One data set.

    Attributes
    ----------
    name : str
    make : callable
        Returns (X, y).
    regression : bool
        Whether the targets are numbers, which are scaled, and the score is R^2; otherwise it is the accuracy.
    parameters : dict
    """

    name: str
    make: Callable[[], tuple[Any, Any]]
    regression: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """Three quarters of the rows for training, and a quarter for scoring."""

    x_train: NDArray[Any]
    x_test: NDArray[Any]
    y_train: NDArray[Any]
    y_test: NDArray[Any]


def _shipped(load: Callable[..., Any]) -> Callable[[], Any]:
    return functools.partial(load, return_X_y=True)


def _made(make: Callable[..., Any], **options: Any) -> Callable[[], Any]:
    return functools.partial(make, **options, random_state=0)


TASKS = (
    Task("iris", _shipped(datasets.load_iris)),
    Task("wine", _shipped(datasets.load_wine)),
    Task("breast cancer", _shipped(datasets.load_breast_cancer)),
    Task("digits", _shipped(datasets.load_digits)),
    Task("diabetes", _shipped(datasets.load_diabetes), regression=True, parameters={"early_stopping": True}),
    Task("moons", _made(datasets.make_moons, n_samples=2_000, noise=0.2)),
    Task(
        "classification",
        _made(datasets.make_classification, n_samples=8_000, n_features=60, n_informative=20, n_classes=5),
        parameters={"hidden_layer_sizes": (200, 80), "max_iter": 40},
    ),
    Task(
        "regression",
        _made(datasets.make_regression, n_samples=8_000, n_features=100, n_informative=30, noise=5.0),
        regression=True,
        parameters={"solver": "sgd", "learning_rate_init": 0.02, "max_iter": 40},
    ),
    Task("friedman", _made(datasets.make_friedman1, n_samples=4_000, noise=0.5), regression=True),
    Task(
        "multilabel",
        _made(datasets.make_multilabel_classification, n_samples=3_000, n_features=40, n_classes=8),
        parameters={"max_iter": 100},
    ),
)


@functools.cache
def data_of(name: str, dtype: str) -> Data:
    """A task's data, features with mean 0 and variance 1."""
    task = next(task for task in TASKS if task.name == name)
    x, y = task.make()
    parts = train_test_split(scale(x).astype(dtype), scale(y) if task.regression else y, random_state=0)
    return Data(*(np.ascontiguousarray(part) for part in parts))
