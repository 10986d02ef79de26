"""The regressor: a network that predicts numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.inputs import check_mask
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.base import BaseMLP
from nnbackend.interop.sklearn.data import Given, Problem, Rows, comparable_weights
from nnbackend.support.checks import flag

__all__ = ["MLPRegressor"]


#: By scikit-learn's name of the loss: this package's, and scikit-learn's name of the activation of the outputs.
_LOSSES = {"squared_error": ("mean_squared_error", "identity"), "poisson": ("poisson", "exp")}


class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]
    """`sklearn.neural_network.MLPRegressor`, on any backend.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}
        As in scikit-learn: for "squared_error", `loss_` is half the mean of the squared errors, and the gradient is
        that of half their sum over the outputs; "poisson" is half the Poisson deviance of counts or rates, and
        predictions are the exponential of the network's outputs.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter
        As of :class:`nnbackend.MLPClassifier`.
    shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction
        As in the classifier; the score of validation data is R^2.
    beta_1, beta_2, epsilon, n_iter_no_change, max_fun, backend, dropout, dtype, n_members, scoring, rho
        As there; the predictions of several members are averaged.

    Attributes
    ----------
    coefs_, intercepts_, loss_, loss_curve_, best_loss_, n_iter_, t_
        As of :class:`nnbackend.MLPClassifier`.
    validation_scores_, validation_loss_curve_, best_validation_score_
        As there.
    n_layers_, n_outputs_, n_features_in_, feature_names_in_, estimators_
        As there.
    out_activation_ : {"identity", "exp"}

    Notes
    -----
    Those of :class:`nnbackend.MLPClassifier` hold here as well.
    """

    _target_checks: ClassVar[Mapping[str, Any]] = {"y_numeric": True}

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        backend: str | Backend = "auto",
        dropout: float | Sequence[float] = 0.0,
        dtype: str = "auto",
        n_members: int = 1,
        scoring: Any = None,
        rho: float = 0.9,
    ) -> None:
        self._keep(locals())

    def predict(self, X: Any, return_std: bool = False) -> HostArray | tuple[HostArray, HostArray]:
        """The predicted numbers.

        Parameters
        ----------
        X : (n, features) array_like or sparse matrix
        return_std : bool
            Whether to return, too, how much the members disagree.

        Returns
        -------
        mean : (n,) or (n, outputs) array of the network's dtype
            With several members, the mean of what they predict.
        std : array of the same shape
            If `return_std`: the standard deviation of what they predict, in the unit of the targets. It is that of
            these members, not an estimate for more of them, and contains no noise of the targets.

        Raises
        ------
        InvalidInputError
            There is a single network.
        """
        if not flag("return_std", return_std):
            return self._shaped(self._outputs(X))
        check_is_fitted(self)
        if not hasattr(self, "estimators_"):
            raise InvalidInputError(
                "return_std=True needs several members, and a single network was fitted; fit with n_members=10"
            )
        each = self._each_outputs(X)
        spread: HostArray = np.std(each, axis=0, dtype=np.float64).astype(each[0].dtype)
        return self._shaped(self._mean(each)), self._shaped(spread)

    def _shaped(self, outputs: HostArray) -> HostArray:
        return outputs if self.n_outputs_ > 1 else outputs.ravel()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The coefficient of determination R^2 of the predictions; 1 is best.

        Parameters
        ----------
        X : (n, features) array_like or sparse matrix
        y : (n,) or (n, outputs) array_like
        sample_weight : (n,) array_like, optional
            Only their ratios matter.

        Returns
        -------
        float
        """
        check_mask("y", y)
        return float(super().score(X, y, comparable_weights(sample_weight, X)))

    def _problem(self, given: Given, goes_on: bool, incremental: bool, classes: Any) -> Problem:
        y, (loss, activation) = given.y, _LOSSES[self.loss]
        _check_sign("y", y, loss)
        return Problem(y, 1 if y.ndim == 1 else y.shape[1], loss, activation)

    def _held_targets(self, problem: Problem, y: HostArray) -> tuple[HostArray, HostArray | None]:
        if y.shape[1:] != problem.targets.shape[1:]:
            raise InvalidInputError(
                f"y_val must have the columns of y, shape (m, {problem.outputs}), received shape {y.shape}"
            )
        _check_sign("y_val", y, problem.loss)
        return y, None

    def _score(self, problem: Problem, held: Rows, outputs: HostArray) -> float:
        if not np.isfinite(outputs).all():
            return math.nan
        return float(r2_score(held.targets, outputs, sample_weight=held.weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _check_sign(what: str, y: HostArray, loss: str) -> None:
    if loss == "poisson" and y.min() < 0:
        raise InvalidInputError(
            f"loss='poisson' needs {what} of counts or rates, at least 0, received {y.min():g}; for numbers of any "
            "sign use loss='squared_error'"
        )
