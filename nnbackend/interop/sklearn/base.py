"""The common part of the classifier and the regressor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import check_mask, is_sparse
from nnbackend.data.rows import check_places
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.architecture import Architecture, Weights
from nnbackend.interop.sklearn.data import Given, Problem, Rows, Table, split, weights_of_rows
from nnbackend.interop.sklearn.engine import Engine, freeze, outputs_of
from nnbackend.interop.sklearn.fitting import Fitting, train
from nnbackend.interop.sklearn.members import combine, members_of
from nnbackend.interop.sklearn.progress import Progress
from nnbackend.interop.sklearn.settings import Settings
from nnbackend.interop.sklearn.solver import Solver
from nnbackend.network import Network
from nnbackend.support.surroundings import own_error_state

__all__ = ["BaseMLP", "Begun", "begin_fit", "check_data", "finish_fit"]

#: Attributes in which scikit-learn keeps the features of the rows that were fitted.
_INPUTS = ("n_features_in_", "feature_names_in_")

#: Networks in training: of which estimator, how, and what they learn.
Begun: TypeAlias = "list[tuple[BaseMLP, Fitting, Problem]]"


class BaseMLP(BaseEstimator):  # type: ignore[misc]
    """A multi-layer perceptron. A subclass defines its targets and how predictions are scored."""

    #: Options of `validate_data` for the targets.
    _target_checks: ClassVar[Mapping[str, Any]] = {}

    _engine: Engine
    _progress: Progress

    @classmethod
    @cache
    def _get_param_names(cls) -> list[str]:
        """The constructor's arguments, which scikit-learn would find out in every call."""
        names: list[str] = super()._get_param_names()
        return names

    def _keep(self, arguments: Mapping[str, Any]) -> None:
        """Store the constructor's arguments unchanged; scikit-learn requires `fit` to check them."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    def _problem(self, given: Given, goes_on: bool, incremental: bool, classes: Any) -> Problem:
        """The problem that `fit` or `partial_fit` solves; InvalidInputError if training cannot continue with it."""
        raise NotImplementedError

    def _score(self, problem: Problem, held: Rows, outputs: HostArray) -> float:
        """The score of the network's outputs for validation data; higher is better."""
        raise NotImplementedError

    def _learned(self, problem: Problem) -> None:
        """Set the attributes that only the subclass has."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train until the loss or, with early stopping, the validation score no longer improves.

        Parameters
        ----------
        X : (n, features) array_like or sparse matrix
        y : array_like
            For a classifier, (n,) classes of any type, or (n, k) zeros and ones if a row may belong to several classes.
            For a regressor, (n,) or (n, outputs) numbers.
        sample_weight : (n,) array_like, optional

        Raises
        ------
        InvalidInputError, UnknownNameError
            Before anything is changed.
        DivergedFitError
            The loss or a weight became NaN or infinite.
        BackendUnavailableError
            The backend cannot run here.
        """
        with own_error_state(), self._inputs_kept():
            self._train(X, y, sample_weight, incremental=False)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on these rows, continuing from the last call; otherwise like `fit`."""
        with own_error_state(), self._inputs_kept():
            self._train(X, y, sample_weight, incremental=True)
        return self

    @contextmanager
    def _inputs_kept(self) -> Iterator[None]:
        """Keep the number and names of features if training fails; `validate_data` sets them before anything else."""
        before = {name: value for name, value in vars(self).items() if name in _INPUTS}
        try:
            yield
        except BaseException:
            for name in _INPUTS:
                if name in before:
                    setattr(self, name, before[name])
                elif hasattr(self, name):
                    delattr(self, name)
            raise

    def _train(self, X: Any, y: Any, sample_weight: Any, incremental: bool, classes: Any = None) -> None:
        """The implementation of `fit` and `partial_fit`; `classes` are those given to a classifier's `partial_fit`."""
        settings = Settings.of(self)
        if incremental and settings.early_stopping:
            raise InvalidInputError(
                "partial_fit does not support early_stopping=True, because it trains for a single epoch; "
                "set it to False, or use fit"
            )
        given = check_data(self, X, y, settings, reset=not self._goes_on(incremental))
        begun = begin_fit(self, given, settings, sample_weight, incremental, classes)
        try:
            train([fitting for _, fitting, _ in begun])
            finish_fit(self, begun)
        except BaseException:
            if len(begun) > 1:
                # Some may have been trained.
                for _, fitting, _ in begun:
                    fitting.engine.forget()
            raise

    def _goes_on(self, incremental: bool) -> bool:
        return hasattr(self, "coefs_") and (self.warm_start or incremental)

    def _begin(
        self, given: Given, settings: Settings, sample_weight: Any, incremental: bool, classes: Any
    ) -> tuple[Self, Fitting, Problem]:
        """Prepare the training of one network."""
        goes_on = self._goes_on(incremental)
        weights = weights_of_rows(sample_weight, len(given))
        problem = self._problem(given, goes_on, incremental, classes)
        generator = check_random_state(self.random_state)
        engine, start = self._engine_for(given.table.x, problem, settings, generator, goes_on, incremental)
        rows, held = split(given, problem, weights, settings, generator)
        network = engine.place(settings.backend, start)
        rows = given.table.for_device(network, rows, problem)
        progress = self._progress.continued() if goes_on else Progress()
        score = partial(self._score, problem)
        fitting = Fitting(engine, network, settings, progress, rows, generator, held, score, once=incremental)
        for name, value in given.inputs.items():
            setattr(self, name, value)
        return self, fitting, problem

    def _finish(self, fitting: Fitting, problem: Problem, weights: Weights) -> None:
        """Set the attributes of one network."""
        self.coefs_, self.intercepts_ = weights
        self.n_layers_, self.n_outputs_ = len(fitting.engine.architecture.units), problem.outputs
        self.out_activation_ = problem.out_activation
        self._engine, self._progress = fitting.engine, fitting.progress
        self._progress.publish(self)
        self._learned(problem)

    def _validated(self, X: Any, y: Any, settings: Settings, reset: bool) -> tuple[Any, HostArray]:
        """The data as arrays of the right type; y has two dimensions only if it has several columns."""
        _check_array(X)
        check_mask("y", y)
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            dtype=[np.float64, np.float32] if settings.dtype is None else settings.dtype,
            reset=reset,
            **self._target_checks,
        )
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _engine_for(
        self,
        X: Any,
        problem: Problem,
        settings: Settings,
        generator: np.random.RandomState,
        goes_on: bool,
        incremental: bool,
    ) -> tuple[Engine, Weights]:
        """The engine for training, and the initial weights."""
        units = (X.shape[1], *settings.hidden_layer_sizes, problem.outputs)
        dtype = self._engine.architecture.dtype if goes_on else X.dtype.name
        architecture = Architecture(units, settings.activation, settings.dropout, problem.loss, dtype)
        if not goes_on:
            weights = architecture.initial_weights(generator)
            return Engine(architecture, Solver(settings), _mask_seed(settings, generator)), weights
        old: Engine = self._engine
        same = architecture == old.architecture
        if architecture.units != old.architecture.units or (incremental and not same):
            raise InvalidInputError(
                f"training cannot continue with {architecture}, because the fitted network has {old.architecture}; "
                "restore the parameters, or fit again with warm_start=False"
            )
        weights = (self.coefs_, self.intercepts_)
        if incremental:
            return old, weights
        seed = old.seed or _mask_seed(settings, generator)
        return Engine(architecture, Solver(settings), seed, old.steps), weights

    def _outputs(self, X: Any) -> HostArray:
        """The fitted network's outputs for some rows, (n, outputs); the mean of all members."""
        return self._mean(self._each_outputs(X))

    @staticmethod
    def _mean(each: list[HostArray]) -> HostArray:
        if len(each) == 1:
            return each[0]
        mean: HostArray = np.mean(each, axis=0, dtype=np.float64).astype(each[0].dtype)
        return mean

    def _each_outputs(self, X: Any) -> list[HostArray]:
        """The outputs of each member."""
        if self._is_plain(X) and (outputs := self._direct_outputs(X)) is not None:
            return outputs
        check_is_fitted(self)
        _check_array(X)
        with own_error_state():
            X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=[np.float64, np.float32], reset=False)
            return [outputs_of(network, X) for network in self._networks()]

    def _networks(self) -> list[Network]:
        """The network of each member."""
        members = getattr(self, "estimators_", [self])
        return [each._engine.place(self.backend, (each.coefs_, each.intercepts_)) for each in members]

    def _is_plain(self, X: Any) -> bool:
        """Whether scikit-learn would only look for NaN in `X`, as networks do, too."""
        return (
            type(X) is np.ndarray
            and X.ndim == 2
            and X.dtype in (np.float32, np.float64)
            and X.dtype.isnative
            and "coefs_" in vars(self)
            and X.shape[1] == self.n_features_in_
            and "feature_names_in_" not in vars(self)
        )

    def _direct_outputs(self, X: HostArray) -> list[HostArray] | None:
        """The outputs of each member for a plain array; None if it has to be checked first."""
        each = []
        for network in self._networks():
            outputs = network.predict_directly(X)
            if outputs is None:
                return None
            each.append(outputs)
        return each

    def __setstate__(self, state: Any) -> None:
        # Older versions had one network.
        super().__setstate__({"n_members": 1, **state})
        if "coefs_" in state:
            freeze((self.coefs_, self.intercepts_))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def check_data(estimator: BaseMLP, X: Any, y: Any, settings: Settings, reset: bool) -> Given:
    """The data for an estimator, checked by scikit-learn; sets the number and names of features if `reset`.

    Raises
    ------
    InvalidInputError, ValueError, TypeError
    """
    X, y = estimator._validated(X, y, settings, reset)
    return Given(Table(X), y, None, {name: value for name, value in vars(estimator).items() if name in _INPUTS})


def begin_fit(
    estimator: BaseMLP,
    given: Given,
    settings: Settings,
    sample_weight: Any = None,
    incremental: bool = False,
    classes: Any = None,
) -> Begun:
    """Prepare the training of an estimator's network, or of each of its members, which does not change them yet.

    Raises
    ------
    InvalidInputError, UnknownNameError, BackendUnavailableError
        As `fit`.
    """
    members = members_of(estimator, settings, estimator._goes_on(incremental))
    return [each._begin(given, settings, sample_weight, incremental, classes) for each in members]


def finish_fit(estimator: BaseMLP, begun: Begun) -> None:
    """Set an estimator's attributes to what was learned so far.

    Raises
    ------
    DivergedFitError
        Before anything is changed.
    """
    learned = [fitting.weights() for _, fitting, _ in begun]
    for (member, fitting, problem), weights in zip(begun, learned, strict=True):
        member._finish(fitting, problem, weights)
    if begun[0][0] is estimator:
        estimator.__dict__.pop("estimators_", None)
        return
    combine(estimator, [member for member, _, _ in begun])
    estimator._learned(begun[0][2])


def _check_array(X: Any) -> None:
    """Reject what scikit-learn takes as data although it is none: masked values, and damaged sparse matrices."""
    check_mask("X", X)
    if is_sparse(X):
        check_places(X)


def _mask_seed(settings: Settings, generator: np.random.RandomState) -> int:
    """A seed for dropout masks. Without dropout nothing is drawn, so that the random stream equals scikit-learn's."""
    return int(generator.randint(1, np.iinfo(np.int32).max)) if settings.dropout else 0
