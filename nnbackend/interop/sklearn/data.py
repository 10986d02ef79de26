"""Converts an estimator's data to rows for training a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import _num_samples

from nnbackend.backends.contract import HostArray
from nnbackend.data.weights import multiply_weights, row_weights
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.labels import Labels
from nnbackend.interop.sklearn.run import Rows
from nnbackend.interop.sklearn.settings import Settings

__all__ = ["Problem", "comparable_weights", "split", "weights_of_rows"]


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
        The weights of the rows' classes.
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


def weights_of_rows(sample_weight: Any, rows: int) -> HostArray | None:
    """Check the caller's weights; returns them as (n,) float64.

    Raises
    ------
    InvalidInputError
        Wrong shape, or weights that are masked, negative, not finite, or all 0.
    """
    if sample_weight is None:
        return None
    weights = row_weights(sample_weight, rows)
    if not weights.any():
        raise InvalidInputError("all of sample_weight is zero; at least one row must count")
    return weights


def comparable_weights(sample_weight: Any, X: Any) -> HostArray | None:
    """Checked weights for a score, which depends only on their ratios, of a size whose sums are finite."""
    given = weights_of_rows(sample_weight, _num_samples(X))
    return None if given is None else multiply_weights([given])[0]


def split(
    x: Any, problem: Problem, weights: HostArray | None, settings: Settings, generator: np.random.RandomState
) -> tuple[Rows, Rows | None]:
    """The rows for training, and those for validation with early stopping.

    Both have the weights of the rows and of their classes, so that the best epoch is the best by the weights that
    training uses.

    Raises
    ------
    InvalidInputError
        There are too few rows for validation, or all rows of a part weigh zero.
    """
    weights, held = _product(weights, problem.class_weights), None
    targets = problem.targets
    if settings.early_stopping:
        _check_sizes(problem, settings.validation_fraction)
        places, others = train_test_split(
            np.arange(x.shape[0]),
            random_state=generator,
            test_size=settings.validation_fraction,
            stratify=targets if problem.stratified else None,
        )
        held = Rows(x[others], targets[others], None if weights is None else weights[others])
        x, targets, weights = x[places], targets[places], None if weights is None else weights[places]
        for part, name in ((held.weights, "held out by early stopping"), (weights, "left for training")):
            if part is not None and not part.any():
                raise InvalidInputError(
                    f"all {len(part)} rows {name} weigh zero; leave out rows of weight zero, change "
                    "validation_fraction or random_state, or set early_stopping=False"
                )
    return Rows(x, targets, weights), held


def _check_sizes(problem: Problem, fraction: float) -> None:
    """Reject data from which early stopping cannot hold out rows."""
    rows = len(problem.targets)
    held = math.ceil(fraction * rows)
    trained = rows - held
    few = f"{held} of {rows} rows, which leaves {trained} for training"
    counts = np.bincount(problem.targets) if problem.stratified else np.zeros(0, np.int64)
    if (counts == 1).any():
        assert problem.labels is not None
        rare = problem.labels.classes[np.argmax(counts == 1)].item()
        raise InvalidInputError(
            f"early_stopping=True holds out rows of each class, but class {rare!r} has a single row; give at least two "
            "rows of each class, or set early_stopping=False"
        )
    if held < 2:
        raise InvalidInputError(
            f"The validation set is too small: {few}. Raise validation_fraction, give more rows, or set "
            "early_stopping=False"
        )
    if trained < max(1, int(np.count_nonzero(counts))):
        raise InvalidInputError(f"The training set is too small: {few}. Lower validation_fraction, or give more rows")


#: Weights are at most 2 to this power, so that sums of them are finite.
_LARGEST_POWER = 900


def _product(weights: HostArray | None, class_weights: HostArray | None) -> HostArray | None:
    """The product of the weights that there are.

    Their scale matters only for the strength of the penalty, which is negligible for weights as large as those that are
    scaled down here.
    """
    factors = [factor for factor in (weights, class_weights) if factor is not None]
    if not factors:
        return None
    product, exponent = multiply_weights(factors)
    if not product.any():
        raise InvalidInputError("all rows weigh zero by sample_weight and class_weight; at least one row must count")
    scaled: HostArray = np.ldexp(product, min(exponent, _LARGEST_POWER))
    return scaled
