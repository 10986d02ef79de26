"""The common part of the classifier and the regressor."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from sklearn.base import is_regressor
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import check_mask, check_not_class_names, is_sparse
from nnbackend.data.rows import check_places
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.architecture import Architecture, Weights
from nnbackend.interop.sklearn.callbacks import CallbackSupportMixin, FitTask, torn_down
from nnbackend.interop.sklearn.data import Given, Problem, Rows, Table, held_rows, split, weights_of_rows
from nnbackend.interop.sklearn.engine import Engine, LiveEngine, freeze, outputs_of
from nnbackend.interop.sklearn.exports import Exports
from nnbackend.interop.sklearn.fitting import Fitting, train
from nnbackend.interop.sklearn.lbfgs import LbfgsFitting
from nnbackend.interop.sklearn.members import combine, members_of
from nnbackend.interop.sklearn.progress import Progress
from nnbackend.interop.sklearn.settings import Settings, is_auto
from nnbackend.interop.sklearn.solver import NoUpdate, Solver
from nnbackend.interop.sklearn.validation import Validation
from nnbackend.network import Network
from nnbackend.support.arguments import SuggestsNames, keep_arguments
from nnbackend.support.surroundings import own_error_state

__all__ = ["BaseMLP", "Begun", "begin_fit", "check_data", "finish_fit", "takes_batches"]

#: Attributes in which scikit-learn keeps the features of the rows that were fitted.
_INPUTS = ("n_features_in_", "feature_names_in_")

#: Networks in training: of which estimator, how, and what they learn.
Begun: TypeAlias = "list[tuple[BaseMLP, Fitting, Problem]]"


def takes_batches(estimator: Any) -> bool:
    """Whether `partial_fit` exists: L-BFGS needs all rows at once."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit needs solver='adam', 'adamw', 'sgd' or 'rmsprop'; 'lbfgs' needs all rows")
    return True


class BaseMLP(SuggestsNames, CallbackSupportMixin, Exports):  # type: ignore[misc]
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

    _keep = keep_arguments

    def _problem(self, given: Given, goes_on: bool, incremental: bool, classes: Any) -> Problem:
        """The problem that `fit` or `partial_fit` solves; InvalidInputError if training cannot continue with it."""
        raise NotImplementedError

    def _score(self, problem: Problem, held: Rows, outputs: HostArray) -> float:
        """The score of the network's outputs for validation data; higher is better."""
        raise NotImplementedError

    def _held_targets(self, problem: Problem, y: HostArray) -> tuple[HostArray, HostArray | None]:
        """The targets of the caller's validation data, and the weights of their classes."""
        raise NotImplementedError

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train until the loss or, with early stopping, the validation score no longer improves.

        Parameters
        ----------
        X : (n, features) array_like or sparse matrix
        y : array_like
            For a classifier, (n,) classes of any type, or (n, k) zeros and ones if a row may belong to several classes.
            For a regressor, (n,) or (n, outputs) numbers.
        sample_weight : float or (n,) array_like, optional
        X_val, y_val : (m, features) array_like or sparse matrix, array_like, optional
            Validation data. Their loss and score after every epoch are in `validation_loss_curve_` and
            `validation_scores_`, and decide with `early_stopping`, which then holds out no rows of X.
        sample_weight_val : float or (m,) array_like, optional

        Raises
        ------
        InvalidInputError, UnknownNameError
            Before anything is changed.
        DivergedFitError
            The loss or a weight became NaN or infinite.
        BackendUnavailableError
            The backend cannot run here.
        """
        with own_error_state(), self._inputs_kept(), torn_down(self):
            settings = Settings.of(self)
            metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
            task = FitTask(self, settings.max_iter, settings.n_members, {"X": X, "y": y, "metadata": metadata})
            given = check_data(self, X, y, settings, reset=not self._has_inputs(False))
            validation = self._validation_data(X_val, y_val, sample_weight_val, settings)
            begun = begin_fit(self, given, settings, sample_weight, validation=validation)
            for number, (member, fitting, problem) in enumerate(begun):
                fitting.follower = task.follower(number)
                fitting.attributes = partial(self._attributes_now, member, fitting, problem)
            self._train(begun)
            task.end()
        return self

    @available_if(takes_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on these rows, continuing from the last call; otherwise like `fit`."""
        return self._fit_part(X, y, sample_weight)

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

    def _fit_part(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        """The implementation of `partial_fit`; `classes` are those given to a classifier's."""
        with own_error_state(), self._inputs_kept():
            settings = Settings.of(self)
            if settings.early_stopping:
                raise InvalidInputError(
                    "partial_fit does not support early_stopping=True, because it trains for a single epoch; "
                    "set it to False, or use fit"
                )
            given = check_data(self, X, y, settings, reset=not self._has_inputs(True))
            self._train(begin_fit(self, given, settings, sample_weight, True, classes))
        return self

    def _train(self, begun: Begun) -> None:
        """Train the networks, and set the attributes."""
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

    def _has_inputs(self, incremental: bool) -> bool:
        """Whether the number of features is that of an earlier call."""
        return self._goes_on(incremental) and hasattr(self, "n_features_in_")

    def _begin(
        self, given: Given, settings: Settings, sample_weight: Any, incremental: bool, classes: Any, validation: Any
    ) -> tuple[Self, Fitting, Problem]:
        """Prepare the training of one network."""
        goes_on = self._goes_on(incremental)
        weights = weights_of_rows(sample_weight, len(given))
        problem = self._problem(given, goes_on, incremental, classes)
        generator = check_random_state(self.random_state)
        engine, start = self._engine_for(given.table.x, problem, settings, generator, goes_on, incremental)
        known = None
        if validation is not None:
            x_held, y_held, weights_held = validation
            known = held_rows(x_held, *self._held_targets(problem, y_held), weights_held)
        rows, held = split(given, problem, weights, settings, generator, known)
        network = engine.place(settings.backend, start)
        rows = given.table.for_device(network, rows, problem)
        progress = self._progress.continued() if goes_on and hasattr(self, "_progress") else Progress()
        measured = None
        if held is not None:
            score, live = partial(self._score, problem), partial(self._live, network, engine, problem, given)
            measured = Validation(held, problem, settings.scoring, score, live)
        kind = LbfgsFitting if settings.solver == "lbfgs" else Fitting
        fitting = kind(engine, network, settings, progress, rows, generator, measured, once=incremental)
        for name, value in given.inputs.items():
            setattr(self, name, value)
        return self, fitting, problem

    def _finish(self, fitting: Fitting, problem: Problem, weights: Weights) -> None:
        """Set the attributes of one network."""
        self._progress = fitting.progress
        attributes = self._attributes(fitting.engine, problem, weights)
        self.__dict__.update({**attributes, **fitting.progress.attributes()})

    def _attributes(self, engine: Any, problem: Problem, weights: Weights) -> dict[str, Any]:
        """What predictions need."""
        return {
            "coefs_": weights[0],
            "intercepts_": weights[1],
            "n_layers_": len(weights[0]) + 1,
            "n_outputs_": problem.outputs,
            "out_activation_": problem.out_activation,
            "_engine": engine,
        }

    def _attributes_now(self, member: BaseMLP, fitting: Fitting, problem: Problem) -> dict[str, Any]:
        """The attributes of the whole as if its training had ended now with this network alone, for callbacks."""
        old = fitting.engine
        # With a solver and a progress of its own: the callback may train it on.
        engine = Engine(old.architecture, Solver(Settings.of(self)), old.seed, old.steps)
        attributes = member._attributes(engine, problem, freeze(fitting.weights_now()))
        attributes |= {**fitting.progress.attributes(), "_progress": fitting.progress.continued()}
        if member is not self:
            attributes["estimators_"] = [_with(member, attributes)]
        return attributes

    def _live(self, network: Network, engine: Engine, problem: Problem, given: Given) -> BaseMLP:
        """An estimator that predicts with a network in training, for scorers."""
        weights = engine.architecture.unnamed(network.get_weights())
        attributes = {**self._attributes(LiveEngine(network), problem, weights), **given.inputs}
        # Rows have been checked, and are arrays without names.
        attributes.pop("feature_names_in_", None)
        return _with(self, attributes, without=("estimators_", "feature_names_in_"))

    def _validation_data(self, X: Any, y: Any, sample_weight: Any, settings: Settings) -> Any:
        """The caller's validation data, checked: features, targets and weights; None if there are none."""
        if X is None and y is None:
            if sample_weight is not None:
                raise InvalidInputError("sample_weight_val was given without X_val and y_val; give all three")
            return None
        if X is None or y is None:
            missing, given = ("X_val", "y_val") if X is None else ("y_val", "X_val")
            raise InvalidInputError(f"{given} was given without {missing}; give both")
        X, y = self._validated(X, y, settings, reset=False)
        return X, y, weights_of_rows(sample_weight, X.shape[0])

    def _validated(self, X: Any, y: Any, settings: Settings, reset: bool) -> tuple[Any, HostArray]:
        """The data as arrays of the right type; y has two dimensions only if it has several columns."""
        _check_array(X)
        check_mask("y", y)
        if is_regressor(self):
            check_not_class_names(y, "MLPClassifier")
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
        known = goes_on and hasattr(self, "_engine")
        dtype = self._engine.architecture.dtype if known else X.dtype.name
        if settings.solver == "lbfgs":
            dtype = "float64"
        architecture = Architecture(units, settings.activation, settings.dropout, problem.loss, dtype)
        if not goes_on:
            weights = architecture.initial_weights(generator)
            return Engine(architecture, Solver(settings), _mask_seed(settings, generator)), weights
        if not known:
            # The caller has set the weights of an estimator that was not fitted.
            weights = (
                [np.array(each, dtype) for each in self.coefs_],
                [np.array(each, dtype) for each in self.intercepts_],
            )
            return Engine(architecture, Solver(settings), _mask_seed(settings, generator)), weights
        old: Engine = self._engine
        same = architecture == old.architecture
        if architecture.units != old.architecture.units or (incremental and not same):
            raise InvalidInputError(
                f"training cannot continue with {architecture}, because the fitted network has {old.architecture}; "
                "restore the parameters, or fit again with warm_start=False"
            )
        weights = (self.coefs_, self.intercepts_)
        if incremental and not isinstance(old.solver.optimizer, NoUpdate):
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
            return self._as_rows(X, [outputs_of(network, X) for network in self._networks()])

    def _as_rows(self, X: Any, each_outputs: list[HostArray]) -> list[HostArray]:
        """As in scikit-learn, outputs in float32 only if the rows and the weights are."""
        if not is_auto(self.dtype):
            return each_outputs
        return [outputs.astype(np.result_type(X.dtype, outputs.dtype), copy=False) for outputs in each_outputs]

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
            and X.shape[1] == getattr(self, "n_features_in_", None)
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
        return self._as_rows(X, each)

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
    validation: Any = None,
) -> Begun:
    """Prepare the training of an estimator's network, or of each of its members, which does not change them yet.

    Raises
    ------
    InvalidInputError, UnknownNameError, BackendUnavailableError
        As `fit`.
    """
    members = members_of(estimator, settings, estimator._goes_on(incremental))
    return [each._begin(given, settings, sample_weight, incremental, classes, validation) for each in members]


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


def _check_array(X: Any) -> None:
    """Reject what scikit-learn takes as data although it is none: masked values, and damaged sparse matrices."""
    check_mask("X", X)
    if is_sparse(X):
        check_places(X)


def _mask_seed(settings: Settings, generator: np.random.RandomState) -> int:
    """A seed for dropout masks. Without dropout nothing is drawn, so that the random stream equals scikit-learn's."""
    return int(generator.randint(1, np.iinfo(np.int32).max)) if settings.drops else 0


def _with(estimator: BaseMLP, attributes: Mapping[str, Any], without: Collection[str] = ()) -> BaseMLP:
    """A copy of an estimator with other attributes."""
    made = type(estimator).__new__(type(estimator))
    kept = {name: value for name, value in vars(estimator).items() if name not in without}
    made.__dict__.update({**kept, **attributes})
    return made
