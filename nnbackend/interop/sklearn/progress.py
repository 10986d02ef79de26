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
    validation_scores, validation_losses : list of float or None
        A score and a loss for every epoch, if any was trained with validation data.
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
    # At the end, because pickles of older versions lack it.
    validation_losses: list[float] | None = None

    def continued(self) -> Progress:
        """A copy for another call of `fit` that continues the training."""
        return replace(
            self,
            loss_curve=list(self.loss_curve),
            validation_scores=_copy(self.validation_scores),
            validation_losses=_copy(self.validation_losses),
            n_iter=0,
        )

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

    def add_validation(self, loss: float, score: float) -> None:
        """Add the metrics of the validation data after an epoch."""
        # Pickles of older versions may lack one of them.
        self.validation_scores = [] if self.validation_scores is None else self.validation_scores
        self.validation_losses = [] if self.validation_losses is None else self.validation_losses
        self.validation_scores.append(score)
        self.validation_losses.append(loss)

    def judge_score(self, tol: float) -> bool:
        """Compare the last validation score with the best; returns whether it is better."""
        assert self.validation_scores is not None
        score, best = self.validation_scores[-1], self.best_validation_score
        best = -math.inf if best is None else best
        self.failures = self.failures + 1 if score < best + tol else 0
        # In this order NaN is never the best.
        self.best_validation_score = max(best, score)
        return score > best

    def attributes(self) -> dict[str, Any]:
        """An estimator's attributes."""
        return {
            "n_iter_": self.n_iter,
            "t_": self.t,
            "loss_": self.loss_curve[-1],
            "loss_curve_": list(self.loss_curve),
            "best_loss_": self.best_loss,
            "validation_scores_": _copy(self.validation_scores),
            "validation_loss_curve_": _copy(self.validation_losses),
            "best_validation_score_": self.best_validation_score,
        }


def _copy(values: list[float] | None) -> list[float] | None:
    return None if values is None else list(values)
