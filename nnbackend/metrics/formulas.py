"""The metrics that have a name. Each takes weights of the rows; results are those of scikit-learn's functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["METRICS", "TASKS", "Formula", "Task", "top_accuracy"]

Real = npt.NDArray[np.float64]
#: What targets are: one class for each row, any number of labels for each row, or numbers.
Task = Literal["classes", "labels", "numbers"]
TASKS: tuple[Task, ...] = ("classes", "labels", "numbers")


class Formula(NamedTuple):
    """A metric that has a name.

    Attributes
    ----------
    tasks : sequence of str
        The tasks for which it is defined.
    needs : {"classes", "predictions"}
        Whether it compares classes, or takes probabilities or numbers.
    compute : callable
        Takes targets, predictions and weights (n,). For "classes" with `needs` "predictions", predictions are (n,
        classes). For "labels" both are (n, outputs), and so they are for "numbers".
    """

    tasks: Sequence[Task]
    needs: Literal["classes", "predictions"]
    compute: Callable[[Any, Any, Real], float]


# ---- classes ---------------------------------------------------------------------------------------------------------


def _accuracy(true: Any, predicted: Any, weights: Real) -> float:
    """The share of rows whose class is right; with several labels, the share of labels that are."""
    same = true == predicted
    return float(np.average(same if same.ndim == 1 else same.mean(axis=1), weights=weights))


def _counts(true: Any, predicted: Any, weights: Real) -> tuple[Any, Any, Any]:
    """Weights of the rows that are correct, predicted and true, by class."""
    if true.ndim == 2:
        return weights @ (true * predicted), weights @ predicted, weights @ true
    size = int(max(true.max(), predicted.max(), 1)) + 1
    correct = np.bincount(true, weights * (true == predicted), size)
    return correct, np.bincount(predicted, weights, size), np.bincount(true, weights, size)


def _balanced_accuracy(true: Any, predicted: Any, weights: Real) -> float:
    """The mean recall of the classes that occur."""
    correct, _, support = _counts(true, predicted, weights)
    return float(_ratio(correct, support)[support > 0].mean())


def _precision_recall(true: Any, predicted: Any, weights: Real, kind: str, average: str) -> float:
    """Precision, recall or their harmonic mean; 0 where nothing was predicted or nothing is true.

    `average` is "macro", "weighted" or, for "", the positive class of two classes, and "macro" for more.
    """
    correct, guessed, support = _counts(true, predicted, weights)
    scores = {
        "precision": partial(_ratio, correct, guessed),
        "recall": partial(_ratio, correct, support),
        "f1": partial(_ratio, 2 * correct, guessed + support),
    }[kind]()
    if average == "" and true.ndim == 1 and len(scores) == 2:
        return float(scores[1])
    if average == "weighted":
        return float(scores @ support / support.sum()) if support.any() else 0.0
    # Classes that neither occur nor are predicted do not count, if each row has one.
    counts = (guessed + support > 0) | (true.ndim == 2)
    return float(scores[counts].mean())


def _ratio(part: Real, whole: Real) -> Real:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


# ---- scores ----------------------------------------------------------------------------------------------------------


def top_accuracy(k: int, true: Any, scores: Any, weights: Real) -> float:
    """The share of rows whose class has one of the k highest scores; of equal scores, those of earlier classes count
    as higher."""
    own = scores[np.arange(len(true)), true][:, None]
    earlier = np.arange(scores.shape[1]) < np.asarray(true)[:, None]
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return float(np.average(rank < k, weights=weights))


def _by_class(true: Any, scores: Any, weights: Real, score: Callable[[Any, Any, Real], float]) -> float:
    """A score of two classes; the mean over outputs, each against the rest, if there are more."""
    if true.ndim == 1 and scores.shape[1] == 2:
        return score(true == 1, scores[:, 1], weights)
    hits = true > 0 if true.ndim == 2 else np.asarray(true)[:, None] == np.arange(scores.shape[1])
    values = [score(hits[:, k], scores[:, k], weights) for k in range(scores.shape[1])]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _cumulated(positive: Any, scores: Any, weights: Real) -> tuple[Real, Real]:
    """Weights of the positive and of the other rows at or above each distinct score, from the highest one on."""
    order = np.argsort(-scores, kind="stable")
    ordered, hit, weight = scores[order], positive[order], weights[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    return np.cumsum(weight * hit)[last], np.cumsum(weight * ~hit)[last]


def _roc_auc(positive: Any, scores: Any, weights: Real) -> float:
    """Area under the receiver operating characteristic; NaN if all rows are of one kind."""
    hits, others = _cumulated(positive, scores, weights)
    if hits[-1] == 0 or others[-1] == 0:
        return float("nan")
    right, up = np.diff(others, prepend=0.0), (hits + np.concatenate([[0.0], hits[:-1]])) / 2
    return float(right @ up / (hits[-1] * others[-1]))


def _average_precision(positive: Any, scores: Any, weights: Real) -> float:
    """The mean of the precisions at all scores, weighted with the increase of recall; NaN without positive rows."""
    hits, others = _cumulated(positive, scores, weights)
    if hits[-1] == 0:
        return float("nan")
    return float(np.diff(hits, prepend=0.0) @ _ratio(hits, hits + others) / hits[-1])


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _errors(true: Any, predicted: Any, weights: Real, power: int) -> Real:
    """The mean error of each output."""
    means: Real = np.average(np.abs(predicted - true) ** power, axis=0, weights=weights)
    return means


def _r2(true: Any, predicted: Any, weights: Real) -> float:
    """The coefficient of determination, the mean over outputs; of a constant target 1 if it is met and else 0."""
    residual = _errors(true, predicted, weights, 2)
    spread = _errors(true, np.average(true, axis=0, weights=weights), weights, 2)
    scores = 1 - np.divide(residual, spread, out=np.where(residual > 0, 1.0, 0.0), where=spread > 0)
    return float(scores.mean())


_ANY_CLASSES: tuple[Task, ...] = ("classes", "labels")

#: Metrics by name. "top_3_accuracy" and the like exist for any number.
METRICS: dict[str, Formula] = {
    "accuracy": Formula(("classes",), "classes", _accuracy),
    "binary_accuracy": Formula(("labels",), "classes", _accuracy),
    "balanced_accuracy": Formula(("classes",), "classes", _balanced_accuracy),
    **{
        f"{kind}{suffix}": Formula(
            _ANY_CLASSES, "classes", partial(_precision_recall, kind=kind, average=suffix.removeprefix("_"))
        )
        for kind in ("precision", "recall", "f1")
        for suffix in ("", "_macro", "_weighted")
    },
    "roc_auc": Formula(_ANY_CLASSES, "predictions", partial(_by_class, score=_roc_auc)),
    "average_precision": Formula(_ANY_CLASSES, "predictions", partial(_by_class, score=_average_precision)),
    "r2": Formula(("numbers",), "predictions", _r2),
    "mae": Formula(TASKS[2:], "predictions", lambda t, p, w: float(_errors(t, p, w, 1).mean())),
    "mse": Formula(TASKS[2:], "predictions", lambda t, p, w: float(_errors(t, p, w, 2).mean())),
    "rmse": Formula(TASKS[2:], "predictions", lambda t, p, w: float(np.sqrt(_errors(t, p, w, 2)).mean())),
}
