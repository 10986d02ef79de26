"""The column that a model for tables predicts: classes or numbers, and the metrics that fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.cli.table_files import Table, whole_numbers
from nnbackend.cli.text import aligned, percent
from nnbackend.errors import DataError, InvalidInputError, UnknownNameError, shown
from nnbackend.metrics import MetricSet, Predictions

__all__ = ["CLASSIFICATION", "REGRESSION", "TASKS", "Target", "read_target", "scores", "scores_text"]

CLASSIFICATION, REGRESSION = "classification", "regression"
TASKS = ("auto", CLASSIFICATION, REGRESSION)

#: Whole numbers are taken for classes if they have at most this number of different values, each of them on average in
#: at least this number of rows.
_MOST_CLASSES, _LEAST_ROWS = 20, 5

_METRICS = {CLASSIFICATION: ("accuracy", "balanced_accuracy", "f1", "roc_auc"), REGRESSION: ("rmse", "mae", "r2")}
_NAMES = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1": "F1", "roc_auc": "ROC AUC",
    "log_loss": "log loss", "rmse": "root mean squared error", "mae": "mean absolute error", "r2": "R2",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Target:
    """What is to be predicted.

    Attributes
    ----------
    name : str
    task : {"classification", "regression"}
    reason : str
        Why it is this task.
    rows : (m,) array
        Indices of the rows with a value.
    values : (m,) array
        Text, truth values or whole numbers for classes, otherwise float64.
    """

    name: str
    task: str
    reason: str
    rows: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]

    @property
    def groups(self) -> np.ndarray[Any, Any]:
        """A number for each row; of rows with the same number, the same share is held out."""
        if self.task == REGRESSION:
            return np.zeros(len(self.values), np.int64)
        return np.unique(self.values, return_inverse=True)[1]


def read_target(table: Table, name: str | None, task: str = "auto", text: bool | None = None) -> Target:
    """The column to predict, and whether it holds classes or numbers.

    Parameters
    ----------
    table : Table
    name : str or None
    task : {"auto", "classification", "regression"}
    text : bool, optional
        Of a CSV file: whether the values are text, even if they look like numbers; if false, they must be numbers.

    Raises
    ------
    InvalidInputError, UnknownNameError, DataError
        There is no such column, it holds no value, or values that do not fit the task.
    """
    if name is None:
        names = ", ".join(list(table.columns)[:20])
        raise InvalidInputError(f"--target is missing: name the column to predict; {table.path} has {names}")
    if task not in TASKS:
        raise UnknownNameError("task", task, TASKS)
    if name not in table.columns:
        raise UnknownNameError(f"column of {table.path} in --target", name, table.columns)
    given = table.values(name, text)
    lacks = np.array([value is None or value != value for value in given], bool)
    rows = np.flatnonzero(~lacks)
    if not rows.size:
        raise DataError(f"{table.path}: all values of the target {name!r} are missing, so there is nothing to learn")
    values = _array([given[row] for row in rows]) if isinstance(given, list) else given[rows]
    if values.dtype.kind not in "biufU":
        found = sorted({type(value).__name__ for value in given if value is not None})
        raise DataError(
            f"{table.path}: the target {name!r} must hold numbers, text or truth values, received {', '.join(found)}"
        )
    if task == REGRESSION and values.dtype.kind == "U":
        place = next((place for place, value in enumerate(values) if not _is_number(value)), 0)
        raise DataError(
            f"{table.path}: --task regression needs numbers, but the target {name!r} holds text, such as "
            f"{shown(str(values[place]))} in row {rows[place] + 1}; correct it, or give --task classification"
        )
    task, reason = _task(table, name, values, task)
    if task == REGRESSION:
        values = values.astype(np.float64)
    elif values.dtype.kind == "f":
        values = values.astype(np.int64)
    return Target(name, task, reason, rows, values)


def _task(table: Table, name: str, values: np.ndarray[Any, Any], task: str) -> tuple[str, str]:
    """The task, and why."""
    if values.dtype.kind in "bU":
        what = "text" if values.dtype.kind == "U" else "true and false"
        return (CLASSIFICATION, f"it holds {what}") if task == "auto" else (task, "--task says so")
    if np.isinf(values).any():
        raise DataError(f"{table.path}: the target {name!r} holds infinity; leave the value empty")
    distinct = np.unique(values)
    fractions = distinct[distinct != np.round(distinct)]
    whole = values.dtype.kind in "iu" or (not fractions.size and float(np.abs(distinct).max()) < 2**53)
    if task == CLASSIFICATION and not whole:
        holds = (
            f"fractions, such as {float(fractions[0]):g}"
            if fractions.size
            else f"numbers of up to {float(np.abs(distinct).max()):g}, which are not exact; write whole numbers of at "
            "most 64 bits, or text"
        )
        raise DataError(f"{table.path}: --task classification needs classes, but the target {name!r} holds {holds}")
    if task != "auto":
        return task, "--task says so"
    few = len(distinct) <= _MOST_CLASSES and len(values) >= _LEAST_ROWS * len(distinct)
    if whole and few:
        return CLASSIFICATION, f"it holds {len(distinct)} different whole numbers; otherwise give --task regression"
    return REGRESSION, "it holds numbers" + ("; for classes give --task classification" if whole else "")


def _array(values: list[Any]) -> np.ndarray[Any, Any]:
    whole = whole_numbers(values) if all(type(value) is int for value in values) else None
    return np.array(values) if whole is None else whole


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def scores(model: Any, features: Any, target: Target) -> dict[str, float]:
    """The metrics of a fitted estimator for rows whose targets are known.

    Parameters
    ----------
    model : TabularClassifier or TabularRegressor
    features : (m, columns) data frame
    target : Target
        With m values.

    Raises
    ------
    InvalidInputError
        A class is one that the model does not know.
    """
    metrics = _METRICS[target.task]
    if target.task == REGRESSION:
        predicted = model.predict(features)[:, None]
        numbers = Predictions(target.values, predicted, predicted, None)
        return MetricSet(metrics, "numbers", 1, weighted=False)(numbers)
    classes = model.classes_
    known = {value: place for place, value in enumerate(classes.tolist())}
    unknown = sorted({str(value) for value in target.values.tolist() if value not in known})
    if unknown:
        raise InvalidInputError(
            f"the model does not know the classes {', '.join(map(repr, unknown[:9]))} of {target.name!r}; it knows "
            f"{', '.join(map(repr, map(str, list(known)[:20])))}"
        )
    true = np.array([known[value] for value in target.values.tolist()])
    probabilities = model.predict_proba(features)
    rows = Predictions(true, probabilities, probabilities.argmax(axis=1), None)
    found = MetricSet(metrics, "classes", len(classes), weighted=False)(rows)
    own = np.clip(probabilities[np.arange(len(true)), true], np.finfo(np.float64).tiny, 1)
    found["log_loss"] = float(-np.log(own).mean())
    return found


def scores_text(found: Mapping[str, float], target: Target, classes: Sequence[Any] | None = None) -> str:
    """The metrics as a table, and what they would be without a model; `classes` are all that the model knows."""
    names = dict(_NAMES)
    if classes is not None:
        # It depends on which class is the rare one, so say it.
        names["f1"] += f" of {classes[1]}" if len(classes) == 2 else ", mean of the classes"
    rows = [[names[name], _shown(name, value)] for name, value in found.items() if not math.isnan(value)]
    if target.task == REGRESSION:
        rows.append(["for comparison: standard deviation", f"{target.values.std():.6g}"])
    else:
        values, counts = np.unique(target.values, return_counts=True)
        rows.append([f"for comparison: always {values[counts.argmax()]}", percent(counts.max() / counts.sum())])
    return aligned(rows, right=[1])


def _shown(name: str, value: float) -> str:
    if name in ("accuracy", "balanced_accuracy"):
        return percent(value)
    return f"{value:.6g}" if name in ("rmse", "mae") else f"{value:.4f}"
