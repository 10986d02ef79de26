"""Trials of a search: each candidate on each fold, trained at once and scored."""

from __future__ import annotations

import copy
import math
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection._validation import _score
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params, _num_samples

from nnbackend.backends.contract import Backend
from nnbackend.backends.registry import get_backend
from nnbackend.ensembles.queue import run_all
from nnbackend.errors import InvalidInputError, NNBackendError
from nnbackend.interop.sklearn.base import BaseMLP, Begun, begin_fit, check_data, finish_fit
from nnbackend.interop.sklearn.convergence import counted
from nnbackend.interop.sklearn.data import Given
from nnbackend.interop.sklearn.fitting import recordings_for
from nnbackend.interop.sklearn.settings import Settings
from nnbackend.step.recordings import Recordings
from nnbackend.support.surroundings import callers_error_state, own_error_state, say
from nnbackend.training.fit import Epochs
from nnbackend.training.interrupt import Interrupt

__all__ = ["Folds", "Trial", "run_trials"]

Places = npt.NDArray[np.int64]


@dataclass(eq=False)
class Folds:
    """The data of a search and how its candidates are scored.

    Attributes
    ----------
    X, y
        As given to the search.
    splits : list of (train, test)
        Row numbers of each fold.
    fit_params, score_params : dict
        Values of one length as X are for its rows.
    scorer : callable
        As `BaseSearchCV` has it.
    error_score : float or "raise"
    return_train_score : bool
    """

    X: Any
    y: Any
    splits: list[tuple[Places, Places]]
    fit_params: dict[str, Any]
    score_params: dict[str, Any]
    scorer: Any
    error_score: Any
    return_train_score: bool
    #: Recorded steps by the number of their backend's object: rounds of a search share them.
    _recordings: dict[int, Recordings] = field(default_factory=dict)
    #: Checked data of all rows by the kind of estimator; None if the check failed.
    _whole: dict[Any, Given | None] = field(default_factory=dict)
    #: Those of each fold.
    _given: dict[Any, Given] = field(default_factory=dict)
    #: By fold and setting of the earlier steps, as long as a trial needs them.
    _heads: WeakValueDictionary[Any, Head] = field(default_factory=WeakValueDictionary)
    #: The next trial often needs it, too.
    _latest: Head | None = None

    def rows(self, estimator: Any, split: int, test: bool) -> tuple[Any, Any]:
        """The features and targets of a part of a fold, as scikit-learn's searches take them."""
        train, others = self.splits[split]
        part: tuple[Any, Any] = (
            _safe_split(estimator, self.X, self.y, others, train)
            if test
            else _safe_split(estimator, self.X, self.y, train)
        )
        return part

    def of_fold(self, params: dict[str, Any], split: int, test: bool) -> dict[str, Any]:
        """Parameters of `fit` or of a score for a part of a fold."""
        found: dict[str, Any] = _check_method_params(self.X, params=params, indices=self.splits[split][test])
        return found

    def given(self, estimator: BaseMLP, settings: Settings, split: int) -> Given:
        """Checked rows of a fold, for an estimator without earlier steps: all folds share one array."""
        key = type(estimator), settings.dtype
        if key not in self._whole:
            try:
                self._whole[key] = check_data(estimator, self.X, self.y, settings, reset=True)
            except (NNBackendError, ValueError, TypeError):
                # Rows of some folds alone may be wrong.
                self._whole[key] = None
        whole, train = self._whole[key], self.splits[split][0]
        if whole is None or not len(train):
            return check_data(estimator, *self.rows(estimator, split, test=False), settings, reset=True)
        if (key, split) not in self._given:
            self._given[key, split] = Given(whole.table, whole.y[train], train, whole.inputs)
        return self._given[key, split]

    def recordings(self, backend: Backend) -> Recordings:
        """Where trials leave their recorded steps for others."""
        return self._recordings.setdefault(id(backend), recordings_for(backend))

    def head(self, pipeline: Pipeline, split: int, setting: str) -> Head:
        """The earlier steps of a pipeline, fitted to a fold, once for each of their settings."""
        found = self._heads.get((split, setting))
        if found is None:
            found = Head(pipeline, *self.rows(pipeline, split, test=False), self.of_fold(self.fit_params, split, False))
            self._heads[split, setting] = found
        self._latest = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_recordings": {}, "_whole": {}, "_given": {}, "_heads": None, "_latest": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _heads=WeakValueDictionary())


class _Catcher(BaseEstimator):  # type: ignore[misc]
    """Takes the place of the last step of a pipeline, and keeps what it would be fitted to."""

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any = None, **params: Any) -> _Catcher:
        self.caught_ = X, y, params
        return self

    def get_metadata_routing(self) -> Any:
        return self.estimator.get_metadata_routing()


class Head:
    """The earlier steps of a pipeline, fitted, and what they pass on to the last.

    Parameters
    ----------
    pipeline : Pipeline
    X, y : of the rows of a fold
    params : dict
        Of the pipeline's `fit`.

    Attributes
    ----------
    params : dict
        Of the last step's `fit`.
    """

    def __init__(self, pipeline: Pipeline, X: Any, y: Any, params: dict[str, Any]) -> None:
        name, last = pipeline.steps[-1]
        fitted = clone(pipeline)
        fitted.steps[-1] = name, _Catcher(last)
        with callers_error_state():
            fitted.fit(X, y, **params)
        self._X, self._y, self.params = fitted.steps[-1][1].caught_
        self._fitted = fitted
        self._given: dict[Any, Given] = {}

    def given(self, estimator: BaseMLP, settings: Settings) -> Given:
        """The checked rows for the last step."""
        key = type(estimator), settings.dtype
        if key not in self._given:
            self._given[key] = check_data(estimator, self._X, self._y, settings, reset=True)
        return self._given[key]

    def joined(self, estimator: BaseMLP) -> Pipeline:
        """The whole pipeline, with a fitted last step."""
        whole = copy.copy(self._fitted)
        whole.steps = [*self._fitted.steps[:-1], (self._fitted.steps[-1][0], estimator)]
        return whole


@dataclass(eq=False)
class Trial:
    """A candidate on a fold.

    Attributes
    ----------
    number : int
    estimator : BaseMLP or Pipeline
        With the candidate's parameters.
    split : int
    setting : str
        Distinguishes the settings of the earlier steps of a pipeline.
    text : str
        The candidate, if it is printed when the trial has ended.
    result : dict
        As of scikit-learn's `_fit_and_score`.
    """

    number: int
    estimator: Any
    split: int
    setting: str
    text: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    #: Whether it has been trained and is being scored.
    scoring: bool = False
    _head: Head | None = None
    _begun: Begun | None = None
    _seconds: float = 0.0

    @property
    def last(self) -> BaseMLP:
        """The estimator that is trained: of a pipeline the last step."""
        estimator: BaseMLP = self.estimator.steps[-1][1] if isinstance(self.estimator, Pipeline) else self.estimator
        return estimator

    def epochs(self, folds: Folds, interrupt: Interrupt, recordings: Recordings, last: float) -> Epochs:
        """Train, or continue, up to an epoch, and score."""
        started = time.perf_counter()
        if self._begun is None:
            self._begun = self._begin(folds)
        elif all(fitting.ended for _, fitting, _ in self._begun):
            return
        self._seconds += time.perf_counter() - started
        for _, fitting, _ in self._begun:
            yield from fitting.epochs(interrupt, recordings, last)
        if interrupt.requested:
            return
        finish_fit(self.last, self._begun)
        self.scoring = True
        self._score(folds)
        self.scoring = False
        if last == math.inf:
            self.release()

    def release(self) -> None:
        """Release everything but the result."""
        self._begun = self._head = self.estimator = None

    def _begin(self, folds: Folds) -> Begun:
        """Prepare the training."""
        estimator = self.last
        settings = Settings.of(estimator)
        if isinstance(self.estimator, Pipeline):
            self._head = folds.head(self.estimator, self.split, self.setting)
            given, params = self._head.given(estimator, settings), self._head.params
        else:
            given = folds.given(estimator, settings, self.split)
            params = folds.of_fold(folds.fit_params, self.split, test=False)
        unknown = [name for name in params if name != "sample_weight"]
        if unknown:
            raise InvalidInputError(f"fit of {type(estimator).__name__} takes sample_weight, but no {unknown[0]!r}")
        return begin_fit(estimator, given, settings, params.get("sample_weight"))

    def _score(self, folds: Folds) -> None:
        estimator = self.last if self._head is None else self._head.joined(self.last)
        assert self._begun is not None
        steps = sum(fitting.seconds for _, fitting, _ in self._begun)
        unconverged = [fitting.unconverged for _, fitting, _ in self._begun if fitting.unconverged is not None]
        result: dict[str, Any] = {"fit_error": None, "unconverged": unconverged[0] if unconverged else None}
        started = time.perf_counter()
        with callers_error_state():
            result["test_scores"] = self._scores(folds, estimator, test=True, result=result)
            result["fit_time"], result["score_time"] = self._seconds + steps, time.perf_counter() - started
            if folds.return_train_score:
                result["train_scores"] = self._scores(folds, estimator, test=False)
        self.result = result
        if self.text:
            say(f"[CV] {self.text}, fold {self.split}: {result['test_scores']}, {result['fit_time']:.1f} s")

    def _scores(self, folds: Folds, estimator: Any, test: bool, result: dict[str, Any] | None = None) -> Any:
        X, y = folds.rows(estimator, self.split, test)
        if result is not None:
            result["n_test_samples"] = _num_samples(X)
        return _score(
            estimator, X, y, folds.scorer, folds.of_fold(folds.score_params, self.split, test), folds.error_score
        )

    def failed(self, folds: Folds, error: Exception) -> None:
        """Take note of an error of `fit`."""
        score = folds.error_score
        scores = dict.fromkeys(folds.scorer._scorers, score) if isinstance(folds.scorer, _MultimetricScorer) else score
        self.result = {
            "fit_error": "".join(traceback.format_exception(error)),
            "unconverged": None,
            "test_scores": scores,
            "n_test_samples": len(folds.splits[self.split][1]),
            "fit_time": self._seconds,
            "score_time": 0.0,
        }
        if folds.return_train_score:
            self.result["train_scores"] = copy.copy(scores)
        self.release()


def run_trials(folds: Folds, trials: Sequence[Trial], last: float = math.inf) -> list[dict[str, Any]]:
    """Train the estimators of some trials at once, and score them.

    Parameters
    ----------
    folds : Folds
    trials : sequence of Trial
        Those of the same fold and setting should follow each other.
    last : int
        Pause after this epoch. Other calls continue, until one without it.

    Returns
    -------
    list of dict
        The results. "unconverged" is the warning of a fit that has not converged, which is not given.

    Raises
    ------
    Exception
        If `error_score` is "raise", the error of the first trial that failed; or an error of the scoring.
    KeyboardInterrupt
        Ctrl-C.
    """
    interrupt = Interrupt()
    fatal: dict[int, Exception] = {}
    with own_error_state(), interrupt, counted():
        for backend, group in _by_backend(folds, trials, fatal):
            _run(folds, backend, group, interrupt, fatal, last)
    if fatal:
        raise fatal[min(fatal)]
    if interrupt.requested:
        raise KeyboardInterrupt
    # Copies, because a trial that has ended returns its result again in the next round.
    return [dict(trial.result) for trial in trials]


def _by_backend(
    folds: Folds, trials: Sequence[Trial], fatal: dict[int, Exception]
) -> list[tuple[Backend, list[Trial]]]:
    """The trials that can run together."""
    groups: dict[int, tuple[Backend, list[Trial]]] = {}
    for trial in trials:
        if trial.estimator is None:
            # It failed before.
            continue
        try:
            backend = get_backend(trial.last.backend)
        except NNBackendError as error:
            _fail(folds, trial, error, fatal)
        else:
            groups.setdefault(id(backend), (backend, []))[1].append(trial)
    return list(groups.values())


def _run(
    folds: Folds,
    backend: Backend,
    trials: Sequence[Trial],
    interrupt: Interrupt,
    fatal: dict[int, Exception],
    last: float,
) -> None:
    recordings = folds.recordings(backend)

    def waiting() -> Iterator[tuple[int, Epochs]]:
        for place, trial in enumerate(trials):
            if fatal:
                # Those before the first that failed have begun, so that it is the same in every run.
                return
            yield place, trial.epochs(folds, interrupt, recordings, last)

    def ended(place: int, error: Exception | None) -> None:
        if error is not None:
            _fail(folds, trials[place], error, fatal)

    run_all(waiting(), ended, backend, interrupt)


def _fail(folds: Folds, trial: Trial, error: Exception, fatal: dict[int, Exception]) -> None:
    if trial.scoring or folds.error_score == "raise":
        fatal[trial.number] = error
    else:
        trial.failed(folds, error)
