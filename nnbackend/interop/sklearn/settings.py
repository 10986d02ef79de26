"""The constructor arguments of an estimator, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer, get_scorer_names

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Backend
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.support.checks import above_zero, count, number, positive_integer, real_dtype

__all__ = ["Settings", "is_auto"]

#: Activations of hidden layers: scikit-learn's names, and this package's.
_HIDDEN = {"logistic": "sigmoid", **{name: name for name in ACTIVATIONS if name != "softmax"}}

_SOLVERS = ("lbfgs", "sgd", "adam", "adamw", "rmsprop")
_LOSSES = ("squared_error", "poisson")
_LEARNING_RATES = ("constant", "invscaling", "adaptive")


@dataclass(frozen=True)
class Settings:
    """The constructor's arguments, checked and converted, with the same names.

    Attributes
    ----------
    activation : str or tuple of str
        A key of :data:`nnbackend.backends.activations.ACTIVATIONS`, or one for each hidden layer.
    early_stopping : bool
        False for "lbfgs", which ignores it as in scikit-learn.
    dropout : float or tuple of float
        One for all hidden layers, or one for each.
    dtype : str or None
        None for the dtype of the data.
    """

    hidden_layer_sizes: tuple[int, ...]
    activation: str | tuple[str, ...]
    solver: str
    alpha: float
    batch_size: int | None
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    tol: float
    verbose: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    backend: str | Backend
    dropout: float | tuple[float, ...]
    dtype: str | None
    n_members: int
    scoring: Any
    rho: float

    @classmethod
    def of(cls, estimator: Any) -> Settings:
        """Check an estimator's arguments.

        Raises
        ------
        InvalidInputError, UnknownNameError
            A value is out of range, or a name is unknown; nothing was changed.
        """
        _flag("warm_start", estimator.warm_start)
        _loss(getattr(estimator, "loss", "squared_error"))
        sizes = _sizes(estimator.hidden_layer_sizes)
        solver = _name("solver", estimator.solver, _SOLVERS)
        early_stopping = _flag("early_stopping", estimator.early_stopping)
        settings = cls(
            hidden_layer_sizes=sizes,
            activation=_each("activation", estimator.activation, len(sizes), _activation),
            solver=solver,
            alpha=number("alpha", estimator.alpha, low=0),
            batch_size=None if is_auto(estimator.batch_size) else positive_integer("batch_size", estimator.batch_size),
            learning_rate=_name("learning_rate", estimator.learning_rate, _LEARNING_RATES),
            learning_rate_init=above_zero("learning_rate_init", estimator.learning_rate_init),
            power_t=number("power_t", estimator.power_t, low=0),
            max_iter=positive_integer("max_iter", estimator.max_iter),
            shuffle=_flag("shuffle", estimator.shuffle),
            tol=number("tol", estimator.tol, low=0),
            verbose=_verbose(estimator.verbose),
            momentum=number("momentum", estimator.momentum, low=0, high=1, below=True),
            nesterovs_momentum=_flag("nesterovs_momentum", estimator.nesterovs_momentum),
            early_stopping=early_stopping and solver != "lbfgs",
            validation_fraction=number("validation_fraction", estimator.validation_fraction, low=0, high=1, below=True),
            beta_1=number("beta_1", estimator.beta_1, low=0, high=1, below=True),
            beta_2=number("beta_2", estimator.beta_2, low=0, high=1, below=True),
            epsilon=above_zero("epsilon", estimator.epsilon),
            n_iter_no_change=_patience(estimator.n_iter_no_change),
            max_fun=positive_integer("max_fun", estimator.max_fun),
            backend=estimator.backend,
            dropout=_each("dropout", estimator.dropout, len(sizes), _dropout),
            dtype=None if is_auto(estimator.dtype) else real_dtype(estimator.dtype).name,
            n_members=positive_integer("n_members", estimator.n_members),
            scoring=_scoring(estimator.scoring),
            rho=number("rho", estimator.rho, low=0, high=1, below=True),
        )
        if solver == "lbfgs":
            settings._check_for_lbfgs()
        return settings

    @property
    def drops(self) -> bool:
        """Whether outputs of any layer are dropped in training."""
        return bool(np.any(self.dropout))

    def _check_for_lbfgs(self) -> None:
        """Refuse what L-BFGS cannot train with."""
        if self.drops:
            raise InvalidInputError(
                f"solver='lbfgs' needs a loss without randomness, received dropout={self.dropout}; set dropout=0, or "
                "use solver='adam'"
            )
        if self.dtype == "float32":
            raise InvalidInputError(
                "solver='lbfgs' computes in float64, because its line search compares nearly equal losses; received "
                "dtype='float32'. Use dtype='auto', or solver='adam'"
            )


def _sizes(sizes: Any) -> tuple[int, ...]:
    listed = sizes if isinstance(sizes, Iterable) and not isinstance(sizes, str) else [sizes]
    return tuple(positive_integer("a size in hidden_layer_sizes", size) for size in listed)


def _each(what: str, value: Any, layers: int, check: Callable[[str, Any], Any]) -> Any:
    """Check a value for all hidden layers, or a sequence with one for each."""
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        return check(what, value)
    if len(value) != layers:
        raise InvalidInputError(
            f"{what} must be one value, or one for each of the {layers} hidden layers, received {shown(value)}"
        )
    return tuple(check(f"{what}[{place}]", each) for place, each in enumerate(value))


def _activation(what: str, value: Any) -> str:
    return _HIDDEN[_name(what, value, tuple(_HIDDEN))]


def _dropout(what: str, value: Any) -> float:
    return number(what, value, low=0, high=1, below=True)


def _loss(loss: Any) -> None:
    if not isinstance(loss, str) and isinstance(loss, int | np.integer | Sequence | np.ndarray):
        raise InvalidInputError(
            f"loss must be one of {', '.join(map(repr, _LOSSES))}, received {shown(loss)}. The first argument of "
            f"MLPRegressor is the loss; pass the sizes by name: MLPRegressor(hidden_layer_sizes={shown(loss)})"
        )
    _name("loss", loss, _LOSSES)


def _scoring(scoring: Any) -> Any:
    """None, "loss", or a scorer."""
    if scoring is None or callable(scoring) or (isinstance(scoring, str) and scoring == "loss"):
        return scoring
    names = get_scorer_names()
    return get_scorer(_name("scoring", scoring, ("loss", *names)))


def _name(kind: str, name: Any, valid: Sequence[str]) -> str:
    if not isinstance(name, str) or name not in valid:
        raise UnknownNameError(kind, name, valid)
    return name


def _flag(what: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InvalidInputError(f"{what} must be True or False, received {value!r}")
    return bool(value)


def _verbose(value: Any) -> bool:
    return bool(value) if isinstance(value, bool | np.bool_) else count("verbose", value) > 0


def _patience(value: Any) -> float:
    return math.inf if isinstance(value, float) and value == math.inf else positive_integer("n_iter_no_change", value)


def is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"
