"""Converts an estimator's data to rows for training a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.labels import Labels
from nnbackend.interop.sklearn.run import Rows
from nnbackend.interop.sklearn.settings import Settings

__all__ = ["Problem", "row_weights", "split"]


@dataclass
class Problem:
    """The targets of an estimator and how to learn them.

    Attributes
    ----------
    targets : (n,) or (n, outputs) array
        In the form that `Network.fit` accepts.
    outputs : int
    loss : str
    out_activation : str
        scikit-learn's name of the activation that turns outputs into predictions.
    class_weights : (n,) float64 or None
        The weights of the rows' classes; used in training, not in validation.
    labels : Labels or None
        The classes, if the targets are classes.
    """

    targets: HostArray
    outputs: int
    loss: str
    out_activation: str
    class_weights: HostArray | None = None
    labels: Labels | None = None

    @property
    def stratified(self) -> bool:
        """Whether to stratify the validation data by class; scikit-learn does so for two classes."""
        return self.loss == "sigmoid_cross_entropy" and self.outputs == 1


def row_weights(sample_weight: Any, rows: int) -> HostArray | None:
    """Check the caller's weights; returns them as (n,) float64.

    Raises
    ------
    InvalidInputError
        Wrong shape, or weights that are negative, not finite, or all 0.
    """
    if sample_weight is None:
        return None
    weights = as_host_array("sample_weight", sample_weight).astype(np.float64)
    if weights.shape != (rows,):
        raise InvalidInputError(f"sample_weight must have shape ({rows},), received {weights.shape}")
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise InvalidInputError("sample_weight must be finite and not negative")
    if weights.sum() == 0:
        raise InvalidInputError("all of sample_weight is zero; at least one row must count")
    return weights


def split(
    x: Any, problem: Problem, weights: HostArray | None, settings: Settings, generator: np.random.RandomState
) -> tuple[Rows, Rows | None]:
    """The rows for training, as a dense array, and those for validation with early stopping, unchanged.

    Raises
    ------
    InvalidInputError
        There are too few rows for validation.
    """
    trained, held = _product(weights, problem.class_weights), None
    targets = problem.targets
    if settings.early_stopping:
        places, others = train_test_split(
            np.arange(x.shape[0]),
            random_state=generator,
            test_size=settings.validation_fraction,
            stratify=targets if problem.stratified else None,
        )
        if len(others) < 2:
            raise InvalidInputError(
                f"The validation set is too small: {len(others)} of {x.shape[0]} rows. Raise validation_fraction, or "
                "give more rows"
            )
        held = Rows(x[others], targets[others], None if weights is None else weights[others])
        x, targets, trained = x[places], targets[places], None if trained is None else trained[places]
    return Rows(x.toarray() if hasattr(x, "toarray") else x, targets, trained), held


def _product(one: HostArray | None, other: HostArray | None) -> HostArray | None:
    if one is None or other is None:
        return other if one is None else one
    both: HostArray = one * other
    return both
