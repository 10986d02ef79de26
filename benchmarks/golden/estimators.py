"""Configurations that fit the scikit-learn estimators."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np

import nnbackend as nn

from .common import numbers, table
from .digest import Outcome, configuration

__all__: list[str] = []

_FITTED = (
    "coefs_",
    "intercepts_",
    "loss_",
    "loss_curve_",
    "best_loss_",
    "validation_scores_",
    "best_validation_score_",
    "n_iter_",
    "t_",
    "n_layers_",
    "n_outputs_",
    "n_features_in_",
    "out_activation_",
)

_SOLVERS: dict[str, dict[str, Any]] = {
    "adam": {"solver": "adam"},
    "adam-stopped": {"solver": "adam", "early_stopping": True, "n_iter_no_change": 2, "validation_fraction": 0.2},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05},
    "sgd-plain": {"solver": "sgd", "momentum": 0.0, "learning_rate": "invscaling", "learning_rate_init": 0.1},
    "sgd-adaptive": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 0.1,
        "n_iter_no_change": 1,
        "nesterovs_momentum": False,
        "tol": 0.05,
    },
    "dropout": {"dropout": 0.3, "activation": "tanh", "alpha": 0.01, "batch_size": 17},
    "float32": {"dtype": "float32", "activation": "logistic", "shuffle": False},
}


def _keep(outcome: Outcome, estimator: Any, x: Any) -> None:
    for name in _FITTED:
        outcome.add("weights" if name in _FITTED[:2] else "history", getattr(estimator, name))
    outcome.add("outputs", estimator.predict(x))


def _fit(outcome: Outcome, estimator: Any, x: Any, y: Any, **options: Any) -> None:
    with warnings.catch_warnings():
        # So few epochs do not converge, which causes warnings.
        warnings.simplefilter("ignore")
        estimator.fit(x, y, **options)
        _keep(outcome, estimator, x)
        again = pickle.loads(pickle.dumps(estimator))
        rows = slice(0, 50)
        # Both need all rows at once.
        if not estimator.early_stopping and getattr(estimator, "class_weight", None) != "balanced":
            again.partial_fit(x[rows], y[rows])
            _keep(outcome, again, x)


def _settings(backend: str, name: str, random_state: int) -> dict[str, Any]:
    return {
        "hidden_layer_sizes": (9, 5),
        "max_iter": 5,
        "random_state": random_state,
        # By name, because an object with threads cannot be pickled.
        "backend": backend,
        **_SOLVERS[name],
    }


def _classifier(outcome: Outcome, backend: str, solver: str) -> None:
    """Several named classes, two classes, and rows that belong to several classes."""
    x, labels = table(rows=90)
    names = np.array(["north", "east", "south", "west"])[labels]
    for y in (names, labels > 1, np.stack([labels > 1, labels % 2], axis=1).astype(int)):
        estimator = nn.MLPClassifier(**_settings(backend, solver, 3))
        _fit(outcome, estimator, x, y)
        outcome.add("outputs", [estimator.predict_proba(x), estimator.score(x, y)])
    balanced = nn.MLPClassifier(class_weight="balanced", **_settings(backend, solver, 4))
    _fit(outcome, balanced, x, names, sample_weight=np.linspace(0.1, 2, 90))


def _regressor(outcome: Outcome, backend: str, solver: str) -> None:
    x, y = numbers(rows=90)
    for targets in (y, y[:, 0]):
        estimator = nn.MLPRegressor(**_settings(backend, solver, 5))
        _fit(outcome, estimator, x, targets)
        outcome.add("outputs", estimator.score(x, targets))
    warm = nn.MLPRegressor(warm_start=True, **_settings(backend, solver, 6))
    for _ in range(2):
        _fit(outcome, warm, x, y, sample_weight=np.linspace(0.1, 2, 90))


for _solver in _SOLVERS:
    configuration(f"numpy/classifier-{_solver}", "numpy", _solver)(_classifier)
    configuration(f"numpy/regressor-{_solver}", "numpy", _solver)(_regressor)
for _solver in ("adam", "sgd-adaptive"):
    configuration(f"numba/classifier-{_solver}", "numba", _solver)(_classifier)
    configuration(f"numba/regressor-{_solver}", "numba", _solver)(_regressor)
