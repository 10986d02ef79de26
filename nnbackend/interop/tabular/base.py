"""The common part of the classifier and the regressor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from nnbackend.backends.contract import HostArray
from nnbackend.backends.registry import get_backend
from nnbackend.data.weights import row_weights
from nnbackend.ensembles import Ensemble
from nnbackend.errors import InvalidInputError
from nnbackend.interop.tabular.files import StoredTabular
from nnbackend.interop.tabular.preparation import Preparation
from nnbackend.interop.tabular.reading import Column, Table
from nnbackend.interop.tabular.recipe import MOST_ONE_HOT, Recipe, Rows, held_out, members_of, train
from nnbackend.support.arguments import SuggestsNames, keep_arguments
from nnbackend.support.checks import above_zero, flag, positive_integer, real_dtype
from nnbackend.support.surroundings import own_error_state

__all__ = ["BaseTabular"]

#: A seed of a member is below this number.
_SEEDS = np.iinfo(np.int32).max

#: Epochs of the rehearsal that measures the time of an epoch: the first may compile kernels.
_REHEARSAL = 2


class BaseTabular(SuggestsNames, BaseEstimator, StoredTabular):  # type: ignore[misc]
    """Networks for tables. A subclass defines the targets, and what predictions are."""

    #: What the recipe needs of the kind of task: see :class:`nnbackend.interop.tabular.recipe.Recipe`.
    _task: ClassVar[Mapping[str, Any]]

    ensemble_: Ensemble
    preparation_: Preparation
    target_name_: str | None
    _categorical: list[bool]

    _keep = keep_arguments

    def _targets(self, y: Any, rows: int, weights: HostArray | None) -> tuple[HostArray, HostArray]:
        """Set what the targets determine; returns the network's targets, and a class for each row."""
        raise NotImplementedError

    def _recipe(self) -> Recipe:
        """The recipe for the targets that `_targets` has seen."""
        raise NotImplementedError

    def _validated(self, held: HostArray, each: HostArray, targets: HostArray) -> None:
        """Set what follows from the networks' predictions for the rows that they have held out.

        Parameters
        ----------
        held : (members, n) array of bool
        each : (members, n, outputs) array
            Predictions for all rows.
        targets : array
            The networks' targets.
        """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the networks.

        Parameters
        ----------
        X : (n, columns) data frame, Arrow table or array_like
            Numbers, truth values, text and categories; None and NaN are missing values.
        y : array_like
            For a classifier (n,) classes of any type, for a regressor (n,) or (n, outputs) numbers. The name of a
            column of a data frame is kept as `target_name_`.
        sample_weight : (n,) array_like, optional

        Raises
        ------
        InvalidInputError, UnknownNameError
            A parameter is out of range, or the data are of a kind that is not supported; the message names the column.
        TrainingDivergedError
            The loss became NaN or infinite.
        BackendUnavailableError
            The backend cannot run here.
        """
        began, before = perf_counter(), dict(vars(self))
        try:
            with own_error_state():
                self._fit(X, y, sample_weight, began)
        except BaseException:
            # A fitted estimator remains as it was.
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, began: float) -> None:
        members, dtype = positive_integer("n_members", self.n_members), real_dtype(self.dtype)
        most, verbose = positive_integer("max_categories", self.max_categories), flag("verbose", self.verbose)
        backend = get_backend(self.backend)
        columns = self._read(X, reset=True)
        count = len(columns[0].values)
        if y is None:
            raise InvalidInputError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: give one target for each row"
            )
        weights = None if sample_weight is None else row_weights(sample_weight, count)
        targets, classes = self._targets(y, count, weights)
        recipe = self._recipe()
        one_hot = MOST_ONE_HOT if recipe.parts.vectors else math.inf
        preparation = Preparation.of(columns, most, one_hot)
        if not preparation.features.count:
            raise InvalidInputError("no column of X holds a value, so there is nothing to learn from")
        rows = Rows(preparation.apply(columns, dtype), targets, weights, classes)
        generator = check_random_state(self.random_state)
        seeds = [int(generator.randint(_SEEDS)) for _ in range(members)]
        held = held_out(rows, self.validation_fraction, seeds)

        def networks() -> list[Any]:
            return members_of(recipe, preparation.features, seeds, dtype, backend)

        if self.max_seconds is not None:
            limit = above_zero("max_seconds", self.max_seconds)
            times: list[float] = []
            for _ in range(_REHEARSAL):
                start = perf_counter()
                train(networks(), replace(recipe, epochs=1), rows, held, self.validation_fraction, False)
                times.append(perf_counter() - start)
            left = limit - (perf_counter() - began)
            recipe = replace(recipe, epochs=int(min(recipe.epochs, max(1, left // min(times)))))
        trained = networks()
        best = train(trained, recipe, rows, held, self.validation_fraction, verbose)
        self.n_epochs_, self.best_epochs_ = recipe.epochs, best
        name = getattr(y, "name", None)
        self.target_name_ = name if isinstance(name, str) and name else None
        self.preparation_, self.ensemble_ = preparation, Ensemble(trained)
        counted = np.array(held) if weights is None else np.array(held) & (weights > 0)
        self._validated(counted, self._each(rows.x), targets)

    def _read(self, X: Any, reset: bool) -> list[Column]:
        """The columns of a table, whose number and names scikit-learn checks."""
        table = Table(X)
        # scikit-learn knows names only of objects with a shape.
        validate_data(self, X if table.named else np.empty((1, len(table.labels))), reset=reset, skip_check_array=True)
        columns = table.columns(self.categorical_features if reset else self._categorical)
        if not columns or not len(columns[0].values):
            what = "feature(s)" if not columns else "sample(s)"
            # scikit-learn's words.
            raise InvalidInputError(
                f"Found array with 0 {what} (shape={np.shape(X)}) while a minimum of 1 is required: X is empty"
            )
        if reset:
            self._categorical = [column.is_categorical for column in columns]
        return columns

    def _features(self, X: Any) -> HostArray:
        """The features of rows for the fitted networks."""
        check_is_fitted(self, "ensemble_")
        return self.preparation_.apply(self._read(X, reset=False), self.ensemble_.dtype)

    def _each(self, features: HostArray) -> HostArray:
        """The predictions of each network, (members, n, outputs) in float64."""
        each: HostArray = self.ensemble_.predict_all(features).astype(np.float64)
        return each

    def describe_columns(self) -> dict[str, str]:
        """What was made of each column, by name.

        Returns
        -------
        dict of str
        """
        check_is_fitted(self, "ensemble_")
        return self.preparation_.describe()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "ensemble_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.non_deterministic = False
        return tags
