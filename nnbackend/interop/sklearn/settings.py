"""The constructor arguments of an estimator, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Backend
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.support.checks import above_zero, count, number, positive_integer, real_dtype

__all__ = ["Settings"]

#: Activations of hidden layers: scikit-learn's names, and this package's.
_HIDDEN = {"logistic": "sigmoid", **{name: name for name in ACTIVATIONS if name != "softmax"}}

_SOLVERS = ("sgd", "adam")
_LEARNING_RATES = ("constant", "invscaling", "adaptive")


@dataclass(frozen=True)
class Settings:
    """The constructor's arguments, checked and converted, with the same names.

    Attributes
    ----------
    activation : str
        A key of :data:`nnbackend.backends.activations.ACTIVATIONS`.
    dtype : str or None
        None for the dtype of the data.
    """

    hidden_layer_sizes: tuple[int, ...]
    activation: str
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
    backend: str | Backend
    dropout: float
    dtype: str | None
    n_members: int

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
        return cls(
            hidden_layer_sizes=_sizes(estimator.hidden_layer_sizes),
            activation=_HIDDEN[_name("activation", estimator.activation, tuple(_HIDDEN))],
            solver=_solver(estimator.solver),
            alpha=number("alpha", estimator.alpha, low=0),
            batch_size=None if _is_auto(estimator.batch_size) else positive_integer("batch_size", estimator.batch_size),
            learning_rate=_name("learning_rate", estimator.learning_rate, _LEARNING_RATES),
            learning_rate_init=above_zero("learning_rate_init", estimator.learning_rate_init),
            power_t=number("power_t", estimator.power_t, low=0),
            max_iter=positive_integer("max_iter", estimator.max_iter),
            shuffle=_flag("shuffle", estimator.shuffle),
            tol=number("tol", estimator.tol, low=0),
            verbose=_verbose(estimator.verbose),
            momentum=number("momentum", estimator.momentum, low=0, high=1, below=True),
            nesterovs_momentum=_flag("nesterovs_momentum", estimator.nesterovs_momentum),
            early_stopping=_flag("early_stopping", estimator.early_stopping),
            validation_fraction=number("validation_fraction", estimator.validation_fraction, low=0, high=1, below=True),
            beta_1=number("beta_1", estimator.beta_1, low=0, high=1, below=True),
            beta_2=number("beta_2", estimator.beta_2, low=0, high=1, below=True),
            epsilon=above_zero("epsilon", estimator.epsilon),
            n_iter_no_change=_patience(estimator.n_iter_no_change),
            backend=estimator.backend,
            dropout=number("dropout", estimator.dropout, low=0, high=1, below=True),
            dtype=None if _is_auto(estimator.dtype) else real_dtype(estimator.dtype).name,
            n_members=positive_integer("n_members", estimator.n_members),
        )


def _sizes(sizes: Any) -> tuple[int, ...]:
    listed = sizes if isinstance(sizes, Iterable) and not isinstance(sizes, str) else [sizes]
    return tuple(positive_integer("a size in hidden_layer_sizes", size) for size in listed)


def _solver(solver: Any) -> str:
    if solver == "lbfgs":
        raise InvalidInputError(
            "solver='lbfgs' is not supported, because it needs all rows in every step and networks train on batches; "
            "use solver='adam' (or 'sgd'), or scikit-learn's own estimator"
        )
    return _name("solver", solver, _SOLVERS)


def _loss(loss: Any) -> None:
    if loss == "poisson":
        raise InvalidInputError(
            "loss='poisson' is not supported, because no backend has an operation for it; use loss='squared_error', or "
            "scikit-learn's own MLPRegressor"
        )
    _name("loss", loss, ("squared_error",))


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


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"
