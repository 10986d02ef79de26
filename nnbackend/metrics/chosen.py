"""The metrics that a user asks for: by name, or any function of targets and predictions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.data.weights import multiply_weights
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.metrics.formulas import METRICS, Formula, Task, top_accuracy
from nnbackend.support.attributes import Guarded
from nnbackend.support.checks import text

__all__ = ["Metric", "MetricSet", "Predictions", "check_metrics"]

_NEEDS = ("classes", "predictions")
#: Arguments with which functions of scikit-learn take predictions, and functions that have other arguments.
_PREDICTIONS = {"y_score", "y_prob", "y_proba", "probas_pred", "y_pred_proba", "pred_decision"}
_OF_PREDICTIONS = ("log_loss",)
#: Names of Keras and scikit-learn.
_ALIASES = {
    "acc": "accuracy",
    "auc": "roc_auc",
    "f1_score": "f1",
    "mean_absolute_error": "mae",
    "mean_squared_error": "mse",
    "r2_score": "r2",
    "root_mean_squared_error": "rmse",
}
#: Metrics of class 1 if there are two classes, otherwise the mean over classes.
_OF_CLASS_1 = ("precision", "recall", "f1")
_TOP = re.compile(r"top_([1-9]\d{0,5})_accuracy")


class Metric(Guarded):
    """A metric from a function, such as one of ``sklearn.metrics``.

    Parameters
    ----------
    function : callable
        ``function(y_true, y_pred)`` returns a number. If the rows have weights, they are passed as ``sample_weight=``.
    name : str, optional
        Default: the name of the function.
    needs : {"classes", "predictions"}, optional
        What `y_pred` is: class indices, (n,), or 0 and 1 for several labels, (n, outputs); or what `predict` returns,
        (n, outputs), or (n,) for a single output. Default: "classes" if targets are classes. Functions such as
        ``roc_auc_score`` need "predictions".
    weighted : bool
        Whether to pass the weights of the rows, if there are any.

    Raises
    ------
    InvalidInputError, UnknownNameError
        An argument has another type or value.

    Notes
    -----
    `y_true` has class indices, (n,), for classes; 0 and 1, (n, outputs), for several labels; and otherwise numbers,
    (n,) or (n, outputs).
    """

    def __init__(
        self, function: Callable[..., Any], name: str | None = None, needs: str | None = None, weighted: bool = True
    ) -> None:
        if not callable(function):
            raise InvalidInputError(
                f"a metric must be a name or a function of y_true and y_pred, received {shown(function)}"
            )
        self.function = function
        self.name = text("name", _name_of(function) if name is None else name)
        if needs is not None and (not isinstance(needs, str) or needs not in _NEEDS):
            raise UnknownNameError("needs", needs, _NEEDS)
        self.needs, self.weighted = needs, bool(weighted)

    @property
    def takes_weights(self) -> bool:
        """Whether the function has an argument `sample_weight`."""
        try:
            parameters = inspect.signature(self.function).parameters
        except (TypeError, ValueError):
            return False
        return "sample_weight" in parameters

    @property
    def takes_predictions(self) -> bool:
        """Whether the function is known to take predictions in place of classes, from the names of its arguments."""
        try:
            parameters = inspect.signature(self.function).parameters
        except (TypeError, ValueError):
            return False
        return bool(_PREDICTIONS & parameters.keys()) or self.name in _OF_PREDICTIONS

    def __repr__(self) -> str:
        return f"<Metric {self.name}>"


def _name_of(function: Any) -> str:
    inner = function.func if isinstance(function, partial) else function
    return str(getattr(inner, "__name__", type(inner).__name__))


def check_metrics(metrics: Any) -> tuple[Metric | str, ...]:
    """The argument `metrics`: names and functions, checked as far as this is possible without data.

    Raises
    ------
    InvalidInputError, UnknownNameError
    """
    if isinstance(metrics, str | Metric) or not isinstance(metrics, Iterable):
        raise InvalidInputError(
            f"metrics must be a list of names and functions, such as ['f1', my_metric], received {shown(metrics)}"
        )
    checked: list[Metric | str] = []
    for each in metrics:
        if isinstance(each, str):
            name = _ALIASES.get(each, each)
            if name not in METRICS and not _TOP.fullmatch(name):
                raise UnknownNameError("metric", each, [*METRICS, "top_5_accuracy"])
            checked.append(name)
        else:
            checked.append(each if isinstance(each, Metric) else Metric(each))
    names = [each if isinstance(each, str) else each.name for each in checked]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(
            f"two metrics are called {twice!r}; give one another name: nn.metrics.Metric(f, 'name')"
        )
    return tuple(checked)


@dataclass(eq=False, repr=False)
class Predictions:
    """Targets and predictions of rows, on the host.

    Attributes
    ----------
    true : (n,) or (n, outputs) array
        As :class:`Metric` describes `y_true`.
    predicted : (n, outputs) array
        What `predict` returns.
    classes : (n,) or (n, outputs) array
        What `predict_classes` returns.
    weights : (n,) float64 or None
    """

    true: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    classes: npt.NDArray[Any]
    weights: npt.NDArray[np.float64] | None

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """The rows of several ranks."""
        weights = [part.weights for part in parts if part.weights is not None]
        return cls(
            np.concatenate([part.true for part in parts]),
            np.concatenate([part.predicted for part in parts]),
            np.concatenate([part.classes for part in parts]),
            np.concatenate(weights) if weights else None,
        )


class MetricSet:
    """Metrics for one task.

    Parameters
    ----------
    metrics : sequence of Metric or str
        As `check_metrics` returns them.
    task : {"classes", "labels", "numbers"}
        What targets are.
    outputs : int
        The network's number of outputs.
    weighted : bool
        Whether rows have weights.
    reported : sequence of str
        Names of metrics that are reported in any case, and left out here.
    column : int, optional
        The output that metrics with a name compare with the target, if all outputs predict the same target.

    Raises
    ------
    InvalidInputError
        A metric is not defined for the task, or does not take weights.
    """

    def __init__(
        self,
        metrics: Sequence[Metric | str],
        task: Task,
        outputs: int,
        weighted: bool,
        reported: Sequence[str] = (),
        column: int | None = None,
    ) -> None:
        self._column = column
        self._task, self._metrics = task, [each for each in metrics if each not in reported]
        # Not what these rows have: rows of two classes of three are no task of two classes.
        self._several = task == "classes" and outputs > 2
        for each in self._metrics:
            if isinstance(each, str):
                _check_named(each, task, outputs)
                continue
            if each.needs is None and task != "numbers" and each.takes_predictions:
                raise InvalidInputError(
                    f"the metric {each.name} takes predictions such as probabilities, and not classes; give "
                    f"nn.metrics.Metric({each.name}, needs='predictions'), or needs='classes' if that is what it takes"
                )
            if weighted and each.weighted and not each.takes_weights:
                raise InvalidInputError(
                    f"rows have weights, but the metric {each.name} has no argument sample_weight; to leave them out, "
                    f"give nn.metrics.Metric({each.name}, weighted=False)"
                )
        self.names = [each if isinstance(each, str) else each.name for each in self._metrics]

    def __bool__(self) -> bool:
        return bool(self._metrics)

    def __call__(self, rows: Predictions, prefix: str = "") -> dict[str, float]:
        """The metrics by name.

        Raises
        ------
        InvalidInputError
            A function returns something else than a number.
        """
        return {
            f"{prefix}{name}": self._value(each, rows) for name, each in zip(self.names, self._metrics, strict=True)
        }

    @property
    def has_functions(self) -> bool:
        """Whether there are metrics without a name of this package."""
        return any(isinstance(each, Metric) for each in self._metrics)

    def try_functions(self, rows: Predictions) -> None:
        """Call the functions, and forget what they return.

        Raises
        ------
        InvalidInputError
            A function returns something else than a number.
        """
        for each in self._metrics:
            if isinstance(each, Metric):
                self._value(each, rows)

    def _value(self, metric: Metric | str, rows: Predictions) -> float:
        if isinstance(metric, str):
            formula = _formula(f"{metric}_macro" if self._several and metric in _OF_CLASS_1 else metric)
            true = rows.true
            # Products of weights that are very large or small would overflow or be zero.
            weights = np.ones(len(true)) if rows.weights is None else multiply_weights([rows.weights])[0]
            predicted = rows.classes if formula.needs == "classes" else rows.predicted.astype(np.float64)
            if formula.needs == "predictions" and self._task == "classes" and predicted.shape[1] == 1:
                predicted = np.hstack([1 - predicted, predicted])
            if self._column is not None:
                predicted = predicted[:, self._column : self._column + 1]
            if self._task == "numbers":
                true = true.reshape(len(true), -1).astype(np.float64)
            return formula.compute(true, predicted, weights)
        needs = metric.needs or ("predictions" if self._task == "numbers" else "classes")
        predicted = rows.classes if needs == "classes" else rows.predicted
        if predicted.ndim == 2 and predicted.shape[1] == 1:
            predicted = predicted[:, 0]
        given = {} if rows.weights is None or not metric.weighted else {"sample_weight": rows.weights}
        try:
            value = metric.function(rows.true, predicted, **given)
        except Exception as error:
            error.add_note(f"in the metric {metric.name}")
            raise
        try:
            return float(value)
        except (TypeError, ValueError):
            raise InvalidInputError(f"the metric {metric.name} must return a number, received {shown(value)}") from None


def _formula(name: str) -> Formula:
    top = _TOP.fullmatch(name)
    return METRICS[name] if top is None else Formula(("classes",), "predictions", partial(top_accuracy, int(top[1])))


def _check_named(name: str, task: Task, outputs: int) -> None:
    what = {"classes": "classes", "labels": "several labels for each row", "numbers": "numbers"}
    tasks = _formula(name).tasks
    if task not in tasks:
        fit = [each for each, formula in METRICS.items() if task in formula.tasks]
        raise InvalidInputError(
            f"the metric {name!r} is for {' and '.join(what[each] for each in tasks)}, but this network is trained "
            f"on {what[task]}; give another, such as {', '.join(map(repr, fit[:3]))}"
        )
    top = _TOP.fullmatch(name)
    if top is not None and int(top[1]) >= max(outputs, 2):
        raise InvalidInputError(f"{name!r} of {max(outputs, 2)} classes is always 1; give a smaller number")
