"""A table and small estimators for the tests of TabularClassifier and TabularRegressor."""

from __future__ import annotations

import numpy as np
import pandas as pd

import nnbackend as nn

SMALL = {"hidden_layer_sizes": (16,), "epochs": 30, "batch_size": 32, "random_state": 0}


def table(rows: int = 90, seed: int = 0) -> pd.DataFrame:
    """Numbers of very different sizes, categories, text, truth values and missing values."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "length": generator.normal(1e6, 1e5, rows),
            "count": pd.array(generator.integers(0, 9, rows), "Int64"),
            "colour": generator.choice(["red", "green", "blue"], rows),
            "size": pd.Categorical(generator.choice(["small", "large"], rows)),
            "used": generator.random(rows) < 0.5,
        }
    )
    frame.loc[frame.index[::7], "length"] = np.nan
    frame.loc[frame.index[1::7], "count"] = pd.NA
    frame.loc[frame.index[2::7], "colour"] = None
    return frame


def labels(frame: pd.DataFrame) -> np.ndarray:
    return np.where((frame["colour"] == "red") | (frame["size"] == "large"), "yes", "no")


def numbers(frame: pd.DataFrame) -> np.ndarray:
    return 50.0 + 7 * (frame["colour"] == "red") - 3 * frame["used"] + 2 * (frame["size"] == "large")


FRAME = table()


def classifier(backend="numpy", members=2, **options):
    return nn.TabularClassifier(members, backend=backend, **{**SMALL, **options})


def regressor(backend="numpy", members=2, **options):
    return nn.TabularRegressor(members, backend=backend, **{**SMALL, **options})
