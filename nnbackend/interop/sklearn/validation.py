"""Validation data of an estimator: what is computed of them after every epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.data import Problem, Rows
from nnbackend.interop.sklearn.losses import loss_of_predictions
from nnbackend.support.checks import number
from nnbackend.support.surroundings import callers_error_state

__all__ = ["Validation"]


class Validation:
    """Rows that are not trained on, and how their predictions are scored.

    Parameters
    ----------
    rows : Rows
        With targets in the form that `Network.fit` accepts.
    problem : Problem
    scoring : None, "loss" or callable
        None for `score`, "loss" for the loss with its sign changed, or a scorer.
    score : callable
        The estimator's own score, of the rows and the network's outputs for them.
    fitted : callable
        Returns an estimator that predicts with the network as it is now, for scorers.
    """

    def __init__(
        self,
        rows: Rows,
        problem: Problem,
        scoring: Any,
        score: Callable[[Rows, HostArray], float],
        fitted: Callable[[], Any],
    ) -> None:
        self.rows = rows
        self._problem, self._scoring, self._own_score, self._fitted = problem, scoring, score, fitted

    def measure(self, outputs: HostArray) -> tuple[float, float]:
        """The loss and the score of the network's outputs; higher scores are better.

        Raises
        ------
        InvalidInputError
            A scorer returned no number.
        """
        rows = self.rows
        if not np.isfinite(outputs).all():
            return float("nan"), float("nan")
        loss = loss_of_predictions(self._problem.loss, outputs, rows.targets, rows.weights)
        if self._scoring is None:
            return loss, self._own_score(rows, outputs)
        if isinstance(self._scoring, str):
            return loss, -loss
        labels = self._problem.labels
        y = rows.targets if labels is None or labels.multilabel else labels.classes[rows.targets]
        weights = {} if rows.weights is None else {"sample_weight": rows.weights}
        with callers_error_state():
            score = self._scoring(self._fitted(), rows.x, y, **weights)
        if not isinstance(score, float | int | np.number) or isinstance(score, bool):
            raise InvalidInputError(f"scoring must return a number, received {score!r}")
        return loss, float(score) if np.isnan(score) else number("the result of scoring", score)
