"""The estimators that are compared."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import nnbackend as nn

__all__ = ["BASE", "CONTENDERS", "REALMLP", "Make", "usable"]

#: A function of (whether the target is a number, the features, a seed) that makes an estimator.
Make = Callable[[bool, Any, int], Any]

#: The contender to which the errors of all others are compared.
BASE = "scikit-learn's MLP"

#: The recipe's authors' own implementation, on PyTorch. pytabkit is measured only where it is installed.
REALMLP = "pytabkit's RealMLP-TD-S"


def _prepared(frame: Any, model: Any) -> Any:
    """A pipeline with imputation, one-hot categories and standard scaling for the columns of `frame`."""
    numbers = list(frame.select_dtypes("number").columns)
    others = [name for name in frame.columns if name not in numbers]
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median"), numbers),
            (
                "categories",
                make_pipeline(
                    SimpleImputer(strategy="constant", fill_value="missing", missing_values=np.nan),
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                ),
                others,
            ),
        ]
    )
    return make_pipeline(columns, StandardScaler(), model)


def _theirs(classifier: Callable[[int], Any], regressor: Callable[[int], Any]) -> Make:
    def make(is_regression: bool, frame: Any, seed: int) -> Any:
        if not is_regression:
            return _prepared(frame, classifier(seed))
        return TransformedTargetRegressor(_prepared(frame, regressor(seed)), transformer=StandardScaler())

    return make


def _realmlp(kind: str) -> Callable[[int], Any]:
    def make(seed: int) -> Any:
        import pytabkit

        return getattr(pytabkit, f"RealMLP_TD_S_{kind}")(device="cpu", random_state=seed)

    return make


def _ours(members: int) -> Make:
    def make(is_regression: bool, frame: Any, seed: int) -> Any:
        kind = nn.TabularRegressor if is_regression else nn.TabularClassifier
        return kind(members, random_state=seed)

    return make


CONTENDERS: dict[str, Make] = {
    "one network": _ours(1),
    "8 members": _ours(8),
    BASE: _theirs(lambda seed: MLPClassifier(random_state=seed), lambda seed: MLPRegressor(random_state=seed)),
    "HistGradientBoosting": _theirs(
        lambda seed: HistGradientBoostingClassifier(random_state=seed),
        lambda seed: HistGradientBoostingRegressor(random_state=seed),
    ),
    "random forest": _theirs(
        lambda seed: RandomForestClassifier(random_state=seed), lambda seed: RandomForestRegressor(random_state=seed)
    ),
    REALMLP: _theirs(_realmlp("Classifier"), _realmlp("Regressor")),
}


def usable() -> list[str]:
    """The contenders whose packages are installed."""
    return [name for name in CONTENDERS if name != REALMLP or importlib.util.find_spec("pytabkit") is not None]
