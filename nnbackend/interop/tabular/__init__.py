"""scikit-learn estimators with defaults made for tables: `TabularClassifier` and `TabularRegressor`.

They take a table as it is, with numbers, categories and missing values, and follow the recipe RealMLP-TD-S of
Holzmueller, Grinsztajn and Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data",
NeurIPS 2024, https://arxiv.org/abs/2407.04491: `reading.py` and `preparation.py` turn columns into features,
`recipe.py` says how the networks are built and trained.
"""

from __future__ import annotations

from nnbackend.support.extras import install_command

try:
    from nnbackend.interop.tabular.classifier import TabularClassifier
    from nnbackend.interop.tabular.regressor import TabularRegressor
except ImportError as error:
    if (error.name or "").partition(".")[0] != "sklearn":
        raise
    raise ImportError(
        f"TabularClassifier and TabularRegressor need scikit-learn 1.6 or newer: {install_command('sklearn')}"
    ) from error

__all__ = ["TabularClassifier", "TabularRegressor"]
