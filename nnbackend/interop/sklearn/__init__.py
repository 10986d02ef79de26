"""scikit-learn estimators, trained on any backend: `MLPClassifier`, `MLPRegressor` and `MLPSearchCV`.

Constructor arguments have the same meaning as in scikit-learn. In float64 and without dropout, the same `random_state`
gives the same initial weights, batches and, up to rounding, fitted weights as scikit-learn's own estimators; `run.py`
and `solver.py` explain how this package's operations reproduce their arithmetic.
"""

from __future__ import annotations

from nnbackend.support.extras import install_command

try:
    from nnbackend.interop.sklearn.classifier import MLPClassifier
    from nnbackend.interop.sklearn.regressor import MLPRegressor
    from nnbackend.interop.sklearn.search import MLPSearchCV
except ImportError as error:
    if (error.name or "").partition(".")[0] != "sklearn":
        raise
    raise ImportError(
        f"MLPClassifier, MLPRegressor and MLPSearchCV need scikit-learn 1.6 or newer: {install_command('sklearn')}"
    ) from error

__all__ = ["MLPClassifier", "MLPRegressor", "MLPSearchCV"]
