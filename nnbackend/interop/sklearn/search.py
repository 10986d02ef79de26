"""A search for hyperparameters that trains all candidates on all folds at once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from joblib import effective_n_jobs
from joblib import hash as content_hash
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.model_selection import ParameterGrid, ParameterSampler, check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _insert_error_scores, _warn_or_raise_about_fit_failures
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state, indexable
from sklearn.utils._param_validation import Interval
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params, _num_samples

from nnbackend.errors import InvalidInputError, shown
from nnbackend.interop.sklearn.base import BaseMLP
from nnbackend.interop.sklearn.convergence import counted, warn_of_search
from nnbackend.interop.sklearn.halving import Rounds, best_first
from nnbackend.interop.sklearn.trials import Folds, Trial, run_trials
from nnbackend.support.arguments import SuggestsNames
from nnbackend.support.surroundings import say

__all__ = ["MLPSearchCV"]


class MLPSearchCV(SuggestsNames, BaseSearchCV):  # type: ignore[misc]
    """`sklearn.model_selection.GridSearchCV` and `RandomizedSearchCV` for this package's estimators, as one run.

    The candidates are trained on all folds at once: on Numba as many networks at a time as there are threads, on rows
    that are in memory once. Scores and winner are those of scikit-learn's searches with the same estimator and splits.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, or a Pipeline whose last step is one
        The earlier steps of a pipeline are fitted once for each fold and each of their settings.
    param_grid : dict or list of dict
        Lists of values by the names of parameters; all combinations are tried.
    param_distributions : dict or list of dict
        Instead of `param_grid`: lists or distributions of values, from which `n_iter` candidates are drawn.
    n_iter : int
        Number of candidates drawn.
    scoring : str, callable, list, tuple, dict or None
        As of scikit-learn's GridSearchCV, and so are `refit`, `cv` and `error_score`.
    n_jobs : int or None
        Number of processes, or workers of a joblib backend such as Dask's, that share the candidates. Each trains its
        own at once. One process already uses all cores on Numba, so more are for NumPy and for other machines.
    refit : bool, str or callable
    cv : int, cross-validation generator, iterable or None
        A splitter that needs groups gets them from ``fit(X, y, groups=groups)``.
    verbose : int
        0: nothing is printed, 1: the number of fits, 2: a line for each that has ended.
    random_state : int, RandomState or None
        Determines which candidates are drawn.
    error_score : float or "raise"
        The score of a fit that fails, for example because it diverges.
    return_train_score : bool
    halving : bool
        Whether all candidates train for some epochs only, the best ``1 / factor`` of them for `factor` times as many,
        and so on, until those that are left have trained for `max_iter` epochs [1]_. They continue, and do not start
        again, unless other processes train them, which keep nothing from one round to the next. `max_iter` must be the
        same for all candidates.
    factor : int
        At least 2.
    min_epochs : int
        At least as many epochs are trained before candidates are compared.

    Attributes
    ----------
    cv_results_ : dict of arrays
        As of GridSearchCV. The time of a fit is that of its own steps and their preparation, without waiting for
        others. With halving, a candidate has a row for each round that it took part in; "iter" is the number of the
        round, and "n_resources" the number of epochs up to which it trained.
    best_estimator_ : estimator
        Fitted to all rows with the best parameters, if `refit`.
    best_score_ : float
    best_params_ : dict
    best_index_ : int
        With halving, the best of the last round.
    scorer_ : callable or dict
    n_splits_ : int
    refit_time_ : float
        Seconds.
    multimetric_ : bool
    classes_, n_features_in_, feature_names_in_
        Of `best_estimator_`.
    n_resources_, n_candidates_ : list of int
        With halving: the epochs and the number of candidates of each round.

    Raises
    ------
    InvalidInputError
        When `fit` is called: the estimator is another one, or arguments do not belong together.

    Notes
    -----
    `predict`, `predict_proba`, `score` and the others are those of `best_estimator_`. Ctrl-C ends the search with
    KeyboardInterrupt. Networks with sparse rows train one after the other, and so do, on CuPy, those that are large or
    have different layers.

    Estimators whose `random_state` is None get seeds from NumPy's global state, in the order of the candidates.

    References
    ----------
    .. [1] K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
       AISTATS 2016, https://arxiv.org/abs/1502.07943

    Examples
    --------
    >>> import nnbackend as nn
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> grid = {"learning_rate_init": [0.001, 0.01], "hidden_layer_sizes": [5, 20]}
    >>> classifier = nn.MLPClassifier(max_iter=20, tol=0, n_iter_no_change=20, random_state=0, backend="numpy")
    >>> import warnings; warnings.simplefilter("ignore")
    >>> search = nn.MLPSearchCV(classifier, grid, cv=3).fit(x, y)
    >>> search.best_params_
    {'hidden_layer_sizes': 20, 'learning_rate_init': 0.01}
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **{name: check for name, check in BaseSearchCV._parameter_constraints.items() if name != "pre_dispatch"},
        "param_grid": [dict, list, None],
        "param_distributions": [dict, list, None],
        "n_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "halving": ["boolean"],
        "factor": [Interval(Integral, 2, None, closed="left")],
        "min_epochs": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: Any = None,
        param_distributions: Any = None,
        *,
        n_iter: int = 10,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        halving: bool = False,
        factor: int = 3,
        min_epochs: int = 5,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.refit = refit
        self.cv = cv
        self.verbose = verbose
        self.random_state = random_state
        self.error_score = error_score
        self.return_train_score = return_train_score
        self.halving = halving
        self.factor = factor
        self.min_epochs = min_epochs

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Search, and fit the best candidate to all rows.

        Parameters
        ----------
        X : (n, features) array_like, sparse matrix or data frame
        y : (n,) or (n, outputs) array_like
        **params
            `groups` for the splitter, and `sample_weight`, or what scikit-learn's metadata routing requests. Values of
            length n are divided as the rows are.

        Raises
        ------
        InvalidInputError
            The estimator is another one, arguments do not belong together, or `X_val` was given: a search validates on
            its folds.
        ValueError
            As of scikit-learn's searches; in particular, all fits failed.
        KeyboardInterrupt
            Ctrl-C. As after other errors, nothing is changed.
        """
        self._check_arguments()
        own = [name for name in ("X_val", "y_val", "sample_weight_val") if name in params]
        if own:
            raise InvalidInputError(
                f"{' and '.join(own)}: every fit of a search is validated on the rows that its fold leaves out; for "
                "validation data of your own, append them to X and y and give cv=PredefinedSplit(...) of scikit-learn"
            )
        scorers, metric = self._get_scorers()
        X, y = indexable(X, y)
        params = _check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)
        splits = self._splits(X, y, routed.splitter.split)
        candidates = list(self._candidates())
        folds = Folds(
            X, y, splits, routed.estimator.fit, routed.scorer.score,
            scorers, self.error_score, self.return_train_score,
        )  # fmt: skip
        trials = self._trials(candidates, len(splits))
        if self.verbose > 0:
            count = len(candidates), len(splits)
            say(f"Fitting {count[1]} folds for each of {count[0]} candidates, totalling {count[0] * count[1]} fits")
        learned: dict[str, Any] = {"n_splits_": len(splits)}
        unconverged: list[str | None] = []
        if self.halving:
            results, rounds = self._run_halving(folds, trials, candidates, metric, unconverged)
            learned |= {"n_resources_": rounds.epochs, "n_candidates_": rounds.counts}
        else:
            results = self._format_results(candidates, len(splits), self._run(folds, trials, unconverged))
        learned |= self._best(results, scorers, metric)
        with counted() as refitted:
            if self.refit:
                learned |= self._refitted(X, y, learned["best_params_"], routed.estimator.fit)
        warn_of_search(unconverged, refitted)
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("__")]:
            delattr(self, name)
        for name, value in learned.items():
            setattr(self, name, value)
        return self

    def _check_arguments(self) -> None:
        """Refuse what cannot be searched."""
        _check_ours("estimator", self.estimator)
        if (self.param_grid is None) == (self.param_distributions is None):
            given = "neither" if self.param_grid is None else "both"
            raise InvalidInputError(f"give either param_grid or param_distributions, received {given}")
        for grid in [self.param_grid] if isinstance(self.param_grid, Mapping) else self.param_grid or ():
            drawn = [name for name, values in grid.items() if hasattr(values, "rvs")]
            if drawn:
                raise InvalidInputError(
                    f"param_grid has a distribution for {drawn[0]!r}, but a grid needs lists of values; give "
                    "param_distributions=..., from which n_iter candidates are drawn"
                )
        last = self.estimator.steps[-1][1] if isinstance(self.estimator, Pipeline) else self.estimator
        if any(getattr(each, "_skl_callbacks", None) for each in (self, last)):
            raise InvalidInputError(
                "callbacks are not called, because all candidates train at once; remove them with set_callbacks(), or "
                "use scikit-learn's own GridSearchCV"
            )

    def _splits(self, X: Any, y: Any, params: dict[str, Any]) -> list[tuple[Any, Any]]:
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        expected = splitter.get_n_splits(X, y, **params)
        rows = np.arange(_num_samples(X))
        # Row numbers, whether the splitter returns these or masks.
        splits = [(rows[train], rows[test]) for train, test in splitter.split(X, y, **params)]
        if len(splits) != expected:
            raise ValueError(
                f"cv.split and cv.get_n_splits return inconsistent results. Expected {expected} splits, got "
                f"{len(splits)}"
            )
        if not splits:
            raise ValueError("No fits were performed. Was the CV iterator empty?")
        return splits

    def _candidates(self) -> Iterator[dict[str, Any]]:
        if self.param_grid is not None:
            yield from ParameterGrid(self.param_grid)
        else:
            yield from ParameterSampler(self.param_distributions, self.n_iter, random_state=self.random_state)

    def _trials(self, candidates: Sequence[dict[str, Any]], splits: int) -> list[Trial]:
        """All candidates on all folds."""
        base = clone(self.estimator)
        trials = []
        for place, parameters in enumerate(candidates):
            setting, text = _setting(base, parameters), ""
            if self.verbose > 1:
                text = ", ".join(f"{name}={parameters[name]}" for name in sorted(parameters))
            for split in range(splits):
                estimator = clone(base).set_params(**clone(parameters, safe=False))
                trial = Trial(place * splits + split, estimator, split, setting, text)
                if split == 0:
                    _check_ours(f"the estimator of {parameters}", estimator)
                if trial.last.random_state is None:
                    # Those that train at the same time must not draw from one state.
                    trial.last.set_params(random_state=check_random_state(None).randint(np.iinfo(np.int32).max))
                trials.append(trial)
        return trials

    def _run(
        self, folds: Folds, trials: Sequence[Trial], unconverged: list[str | None], last: float = math.inf
    ) -> list[dict[str, Any]]:
        """The results of some trials after an epoch, or the last; those of the same fold and setting train after each
        other. `unconverged` receives the warning of each, or None."""
        jobs = min(effective_n_jobs(self.n_jobs), len(trials))
        ordered = sorted(trials, key=_together)
        if jobs == 1:
            run_trials(folds, ordered, last)
            return self._checked([dict(trial.result) for trial in trials], unconverged)
        # Neighbours take about equally long; but few workers shall fit the same earlier steps of a pipeline.
        shares = _parts(ordered, jobs) if ordered[0].setting else [ordered[place::jobs] for place in range(jobs)]
        found = Parallel(n_jobs=jobs)(delayed(run_trials)(folds, share, last) for share in shares)
        results = {
            trial.number: result
            for share, part in zip(shares, found, strict=True)
            for trial, result in zip(share, part, strict=True)
        }
        return self._checked([results[trial.number] for trial in trials], unconverged)

    def _run_halving(
        self,
        folds: Folds,
        trials: list[Trial],
        candidates: list[dict[str, Any]],
        metric: Any,
        unconverged: list[str | None],
    ) -> tuple[dict[str, Any], Rounds]:
        """The results of all rounds."""
        rounds, splits = Rounds(trials, len(candidates), self.factor, self.min_epochs), len(folds.splits)
        left = list(range(len(candidates)))
        outcomes: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        more: dict[str, list[int]] = {"iter": [], "n_resources": []}
        results: dict[str, Any] = {}
        for number, (epochs, count) in enumerate(zip(rounds.epochs, rounds.counts, strict=True)):
            for place in left[count:]:
                for trial in trials[place * splits : (place + 1) * splits]:
                    trial.release()
            left = left[:count]
            chosen = [trial for place in left for trial in trials[place * splits : (place + 1) * splits]]
            outcomes += self._run(folds, chosen, unconverged, epochs if number < len(rounds.epochs) - 1 else math.inf)
            rows += [candidates[place] for place in left]
            more["iter"] += [number] * count
            more["n_resources"] += [epochs] * count
            results = self._format_results(rows, splits, outcomes, more)
            left = [left[place] for place in best_first(results[self._compared(results, metric)][-count:])]
        return results, rounds

    def _checked(self, outcomes: list[dict[str, Any]], unconverged: list[str | None]) -> list[dict[str, Any]]:
        """Warn of fits that failed; those that have not converged are counted."""
        unconverged += [outcome.pop("unconverged") for outcome in outcomes]
        _warn_or_raise_about_fit_failures(outcomes, self.error_score)
        if callable(self.scoring):
            _insert_error_scores(outcomes, self.error_score)
            if isinstance(outcomes[0]["test_scores"], dict):
                self._check_refit_for_multimetric(outcomes[0]["test_scores"])
        return outcomes

    def _compared(self, results: dict[str, Any], metric: Any) -> str:
        """The key of the mean scores that decide."""
        name = metric if "mean_test_score" in results or not callable(self.scoring) else self.refit
        if not isinstance(name, str):
            raise InvalidInputError(f"halving=True compares one score; name it with refit, received {shown(name)}")
        return f"mean_test_{name}"

    def _best(self, results: dict[str, Any], scorers: Any, metric: Any) -> dict[str, Any]:
        """The attributes that name the best candidate."""
        several = "mean_test_score" not in results
        if callable(self.scoring) and several:
            metric = self.refit
        found: dict[str, Any] = {
            "cv_results_": results,
            "multimetric_": several,
            # A dict for several scores.
            "scorer_": getattr(scorers, "_scorers", scorers),
        }
        if self.refit or not several:
            found["best_index_"] = index = self._select_best_index(self.refit, metric, results)
            if not callable(self.refit):
                found["best_score_"] = results[f"mean_test_{metric}"][index]
            found["best_params_"] = results["params"][index]
        return found

    @staticmethod
    def _select_best_index(refit: Any, refit_metric: Any, results: dict[str, Any]) -> Any:
        if callable(refit) or "iter" not in results:
            return BaseSearchCV._select_best_index(refit, refit_metric, results)
        last = np.flatnonzero(results["iter"] == results["iter"].max())
        return last[best_first(results[f"mean_test_{refit_metric}"][last])[0]]

    def _refitted(self, X: Any, y: Any, best: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        """The attributes from fitting the best candidate to all rows."""
        estimator = clone(self.estimator).set_params(**clone(best, safe=False))
        began = time.time()
        estimator.fit(X, y, **params)
        found = {"best_estimator_": estimator, "refit_time_": time.time() - began}
        if hasattr(estimator, "feature_names_in_"):
            found["feature_names_in_"] = estimator.feature_names_in_
        return found


def _check_ours(what: str, estimator: Any) -> None:
    """Refuse an estimator that cannot train with others."""
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) and estimator.steps else estimator
    if not isinstance(last, BaseMLP):
        raise InvalidInputError(
            f"{what} must be an nnbackend MLPClassifier or MLPRegressor, or a Pipeline whose last step is one, because "
            f"its networks train at once; received {_named(estimator)}. For others, use scikit-learn's GridSearchCV"
        )
    if type(last).fit is not BaseMLP.fit:
        raise InvalidInputError(
            f"{type(last).__name__} has a `fit` of its own, which is not called for networks that train at once; use "
            "scikit-learn's GridSearchCV"
        )


def _named(estimator: Any) -> str:
    if isinstance(estimator, Pipeline) and estimator.steps:
        return f"a Pipeline that ends with {_named(estimator.steps[-1][1])}"
    return " ".join(shown(estimator).split())


def _setting(estimator: Any, parameters: dict[str, Any]) -> str:
    """Distinguishes candidates for which the earlier steps of a pipeline are different."""
    if not isinstance(estimator, Pipeline):
        return ""
    last = estimator.steps[-1][0]
    earlier = {name: value for name, value in parameters.items() if name.partition("__")[0] != last}
    try:
        return str(content_hash(earlier))
    except Exception:
        # Such as a function without a name, which cannot be pickled: the grid has the same object for all candidates.
        return repr([(name, id(value)) for name, value in sorted(earlier.items())])


def _together(trial: Trial) -> tuple[Any, ...]:
    """The order in which trials run: those that share the earlier steps of a pipeline follow each other, and otherwise
    the folds of a candidate, whose recorded steps are alike."""
    return trial.setting, trial.split if trial.setting else 0, trial.number


def _parts(trials: list[Trial], count: int) -> list[list[Trial]]:
    """The trials in parts of about the same length."""
    ends = np.linspace(0, len(trials), count + 1).round().astype(int)
    return [trials[start:stop] for start, stop in pairwise(ends)]
