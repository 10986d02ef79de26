"""The common part of the classifier and the regressor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array, check_features, check_mask, check_values, is_sparse
from nnbackend.data.rows import check_places
from nnbackend.data.targets import Targets
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.architecture import Architecture, Weights
from nnbackend.interop.sklearn.data import Problem, split, weights_of_rows
from nnbackend.interop.sklearn.engine import Engine, freeze, outputs_of
from nnbackend.interop.sklearn.fitting import train
from nnbackend.interop.sklearn.progress import Progress
from nnbackend.interop.sklearn.run import Rows
from nnbackend.interop.sklearn.settings import Settings
from nnbackend.interop.sklearn.solver import Solver
from nnbackend.losses import get_loss
from nnbackend.network import Network
from nnbackend.support.surroundings import own_error_state

__all__ = ["BaseMLP"]

#: A sparse matrix that is dense in at most this many bytes is converted once, which is faster than batch by batch.
_SMALL = 4 << 20

#: Attributes in which scikit-learn keeps the features of the rows that were fitted.
_INPUTS = ("n_features_in_", "feature_names_in_")


class BaseMLP(BaseEstimator):  # type: ignore[misc]
    """A multi-layer perceptron. A subclass defines its targets and how predictions are scored."""

    #: Options of `validate_data` for the targets.
    _target_checks: ClassVar[Mapping[str, Any]] = {}

    _engine: Engine
    _progress: Progress

    def _keep(self, arguments: Mapping[str, Any]) -> None:
        """Store the constructor's arguments unchanged; scikit-learn requires `fit` to check them."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    def _problem(self, y: HostArray, goes_on: bool, incremental: bool, classes: Any) -> Problem:
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
        goes_on = hasattr(self, "coefs_") and (self.warm_start or incremental)
        X, y = self._validated(X, y, settings, reset=not goes_on)
        given = weights_of_rows(sample_weight, X.shape[0])
        problem = self._problem(y, goes_on, incremental, classes)
        generator = check_random_state(self.random_state)
        engine, start = self._engine_for(X, problem, settings, generator, goes_on, incremental)
        rows, held = split(X, problem, given, settings, generator)
        network = engine.place(settings.backend, start)
        rows = _for_device(network, rows, problem)

        def validate() -> float:
            assert held is not None
            return self._score(problem, held, outputs_of(network, held.x))

        progress = self._progress.continued() if goes_on else Progress()
        scored = None if held is None else validate
        weights = train(engine, network, settings, progress, rows, generator, scored, once=incremental)

        self.coefs_, self.intercepts_ = weights
        self.n_layers_, self.n_outputs_ = len(engine.architecture.units), problem.outputs
        self.out_activation_ = problem.out_activation
        self._engine, self._progress = engine, progress
        progress.publish(self)
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
        """The fitted network's outputs for some rows, (n, outputs)."""
        check_is_fitted(self)
        _check_array(X)
        with own_error_state():
            X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=[np.float64, np.float32], reset=False)
            network = self._engine.place(self.backend, (self.coefs_, self.intercepts_))
            return outputs_of(network, X)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        if "coefs_" in state:
            freeze((self.coefs_, self.intercepts_))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _check_array(X: Any) -> None:
    """Reject what scikit-learn takes as data although it is none: masked values, and damaged sparse matrices."""
    check_mask("X", X)
    if is_sparse(X):
        check_places(X)


def _for_device(network: Network, rows: Rows, problem: Problem) -> Rows:
    """Rows with x and targets in the form that the network trains on; InvalidInputError if the targets do not fit."""
    loss = get_loss(problem.loss)
    targets = Targets.prepare(loss, as_host_array("y", rows.targets), len(rows), problem.outputs, network.dtype)
    x = rows.x
    if rows.sparse:
        x = x.tocsr()
        if x.nnz:
            check_values(x.data[:, None], network.dtype)
        x = x.astype(network.dtype, copy=False)
        if len(rows) * x.shape[1] * network.dtype.itemsize <= _SMALL:
            x = x.toarray()
    elif x.dtype != network.dtype or not x.flags.c_contiguous:
        x = check_features(x, network.input_shape, network.dtype)
    return Rows(x, targets.values, rows.weights)


def _mask_seed(settings: Settings, generator: np.random.RandomState) -> int:
    """A seed for dropout masks. Without dropout nothing is drawn, so that the random stream equals scikit-learn's."""
    return int(generator.randint(1, np.iinfo(np.int32).max)) if settings.dropout else 0
