"""The progress of a fit: losses and scores so far, and how long there has been no improvement."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Progress"]


@dataclass
class Progress:
    """The metrics of all epochs since the start of training, with the names of the estimator's attributes.

    Attributes
    ----------
    loss_curve : list of float
        A loss for every epoch.
    validation_scores : list of float or None
        A score for every epoch, if any was trained with early stopping.
    best_loss, best_validation_score : float or None
        The best value of the metric that decides when to stop.
    failures : int
        Number of consecutive epochs that did not improve the best value by `tol`.
    n_iter : int
        Epochs of this call of `fit`.
    t : int
        Rows seen.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] | None = None
    best_loss: float | None = None
    best_validation_score: float | None = None
    failures: int = 0
    n_iter: int = 0
    t: int = 0

    def continued(self) -> Progress:
        """A copy for another call of `fit` that continues the training."""
        scores = None if self.validation_scores is None else list(self.validation_scores)
        return replace(self, loss_curve=list(self.loss_curve), validation_scores=scores, n_iter=0)

    def add(self, loss: float, rows: int) -> None:
        """Add an epoch over `rows` rows."""
        self.n_iter += 1
        self.t += rows
        self.loss_curve.append(loss)

    def judge_loss(self, tol: float) -> None:
        """Compare the last epoch's loss with the best."""
        loss, best = self.loss_curve[-1], math.inf if self.best_loss is None else self.best_loss
        self.failures = self.failures + 1 if loss > best - tol else 0
        self.best_loss = min(loss, best)

    def judge_score(self, score: float, tol: float) -> bool:
        """Compare a validation score with the best; returns whether it is better."""
        best = -math.inf if self.best_validation_score is None else self.best_validation_score
        if self.validation_scores is None:
            self.validation_scores = []
        self.validation_scores.append(score)
        self.failures = self.failures + 1 if score < best + tol else 0
        # In this order NaN is never the best.
        self.best_validation_score = max(best, score)
        return score > best

    def publish(self, estimator: Any) -> None:
        """Set an estimator's attributes."""
        estimator.n_iter_, estimator.t_ = self.n_iter, self.t
        estimator.loss_, estimator.loss_curve_ = self.loss_curve[-1], list(self.loss_curve)
        estimator.best_loss_ = self.best_loss
        estimator.validation_scores_ = None if self.validation_scores is None else list(self.validation_scores)
        estimator.best_validation_score_ = self.best_validation_score
