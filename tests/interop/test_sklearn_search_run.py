"""MLPSearchCV trains all candidates as one run, and with halving continues the best."""

from __future__ import annotations

import signal

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn import trials
from nnbackend.interop.sklearn.data import Table
from nnbackend.interop.sklearn.fitting import Fitting
from nnbackend.interop.sklearn.halving import Rounds
from tests.interop.estimators import X, Y, same_weights
from tests.interop.test_sklearn_search import GRID, make, numpy_and_numba, scores_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the test scores"),
]


class Counting(TransformerMixin, BaseEstimator):
    """A transformer that counts how often it is fitted."""

    fits = 0

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, x, y=None):
        Counting.fits += 1
        return self

    def transform(self, x):
        return x * self.factor


class TestOneRun:
    @numpy_and_numba
    def test_earlier_steps_are_fitted_once_for_each_fold_and_setting(self, name):
        model = make_pipeline(Counting(), make(backend=name))
        grid = {"counting__factor": [1.0, 2.0], "mlpclassifier__alpha": [1e-4, 1e-2, 1]}
        for options in ({}, {"halving": True, "min_epochs": 1, "factor": 2}):
            Counting.fits = 0
            nn.MLPSearchCV(model, grid, cv=3, refit=False, **options).fit(X, Y)
            assert Counting.fits == 2 * 3

    @numpy_and_numba
    def test_rows_are_in_memory_once(self, name, monkeypatch):
        tables, made = [], Table.__init__

        def noted(self, x):
            tables.append(x)
            made(self, x)

        monkeypatch.setattr(Table, "__init__", noted)
        rows = X.astype(np.float32)
        nn.MLPSearchCV(make(backend=name), GRID, cv=3, refit=False).fit(rows, Y)
        assert len(tables) == 1
        assert np.shares_memory(tables[0], rows)

    def test_recorded_steps_are_shared(self, monkeypatch):
        from nnbackend.interop.sklearn.run import EpochRun

        recorded, record = [], EpochRun._record

        def noted(self, piece, *arguments):
            recorded.append(piece)
            return record(self, piece, *arguments)

        monkeypatch.setattr(EpochRun, "_record", noted)
        model = make(backend=nn.NumbaBackend(1), dtype="float32")
        grid = {"learning_rate_init": [1e-3, 1e-2, 3e-2, 1e-1]}
        nn.MLPSearchCV(model, grid, cv=5, refit=False).fit(X, Y)
        # One network at a time, and batches of 120 rows.
        assert len(recorded) <= 2

    def test_any_number_of_threads(self):
        found = []
        for threads in (1, 2, 5):
            model = make(backend=nn.NumbaBackend(threads), dtype="float32", early_stopping=True, max_iter=8)
            for options in ({}, {"halving": True, "min_epochs": 2, "factor": 2}):
                search = nn.MLPSearchCV(model, GRID, cv=3, scoring="neg_log_loss", **options).fit(X, Y)
                found.append((search.cv_results_["mean_test_score"], search.best_estimator_))
        for one, other in zip(found, found[2:], strict=False):
            np.testing.assert_array_equal(one[0], other[0])
            assert same_weights(one[1], other[1])

    def test_random_states_come_from_the_global_one(self):
        found = []
        for name in ("numpy", "numba", "numba"):
            np.random.seed(5)  # noqa: NPY002
            search = nn.MLPSearchCV(make(random_state=None, backend=name), GRID, cv=3, scoring="neg_log_loss")
            found.append(search.fit(X, Y).cv_results_["mean_test_score"])
        np.testing.assert_array_equal(found[1], found[2])
        np.testing.assert_allclose(found[0], found[1], rtol=1e-3)
        again = nn.MLPSearchCV(make(random_state=None), GRID, cv=3, scoring="neg_log_loss").fit(X, Y)
        assert not np.array_equal(again.cv_results_["mean_test_score"], found[0])

    @numpy_and_numba
    def test_ctrl_c(self, name):
        calls = []

        def scoring(model, x, y):
            calls.append(None)
            if len(calls) == 2:
                signal.raise_signal(signal.SIGINT)
            return 0.0

        search = nn.MLPSearchCV(make(backend=name, max_iter=20), GRID, cv=3, scoring=scoring)
        with pytest.raises(KeyboardInterrupt):
            search.fit(X, Y)
        assert len(calls) < 12
        with pytest.raises(NotFittedError):
            search.predict(X)

    @numpy_and_numba
    def test_an_error_that_is_raised_ends_the_search(self, name):
        scored = []

        def scoring(model, x, y):
            scored.append(None)
            return 0.0

        grid = {"alpha": [-1.0, *np.linspace(0, 1, 9)]}
        model = make(backend=name if name == "numpy" else nn.NumbaBackend(1))
        with pytest.raises(InvalidInputError, match="alpha must be at least 0"):
            nn.MLPSearchCV(model, grid, cv=3, scoring=scoring, error_score="raise").fit(X, Y)
        # Those that had begun.
        assert len(scored) <= 3

    def test_progress(self, capsys):
        nn.MLPSearchCV(make(), GRID, cv=3, verbose=2).fit(X, Y)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Fitting 3 folds for each of 4 candidates, totalling 12 fits"
        assert sum(line.startswith("[CV] alpha=0.1, hidden_layer_sizes=(6,), fold ") for line in lines) == 3
        assert len(lines) == 13


def test_tables_are_released(monkeypatch):
    """After a search, nothing keeps the rows of its folds."""
    import gc
    import weakref

    heads, made = [], trials.Head.__init__

    def noted(self, *arguments):
        heads.append(weakref.ref(self))
        made(self, *arguments)

    monkeypatch.setattr(trials.Head, "__init__", noted)
    nn.MLPSearchCV(make_pipeline(StandardScaler(), make()), {"mlpclassifier__alpha": [0, 1]}, cv=3).fit(X, Y)
    gc.collect()
    assert len(heads) == 3
    assert not any(head() for head in heads)


RATES = {"learning_rate_init": [1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 1, 1e300], "solver": ["sgd"]}


class TestHalving:
    @pytest.fixture
    def epochs(self, monkeypatch):
        """The number of every epoch that is trained."""
        found, run = [], Fitting._epoch

        def noted(self, *arguments):
            found.append(self.progress.n_iter + 1)
            return run(self, *arguments)

        monkeypatch.setattr(Fitting, "_epoch", noted)
        return found

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
    @pytest.mark.filterwarnings("ignore:Scoring failed")
    @numpy_and_numba
    @pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"n_members": 2}], ids=str)
    def test_survivors_continue(self, name, options, epochs):
        given = {"tol": 0, "n_iter_no_change": 100, "max_iter": 16, "backend": name, **options}
        model, members = make(**given), options.get("n_members", 1)
        search = nn.MLPSearchCV(
            model, RATES, cv=3, halving=True, factor=2, min_epochs=2, refit=False, scoring="neg_log_loss"
        ).fit(X, Y)
        assert search.n_resources_ == [2, 4, 8, 16]
        assert search.n_candidates_ == [8, 4, 2, 1]
        results = search.cv_results_
        assert list(results["iter"]) == [0] * 8 + [1] * 4 + [2] * 2 + [3]
        assert list(results["n_resources"]) == [2] * 8 + [4] * 4 + [8] * 2 + [16]
        # The candidate that diverges is in the first round only, and trains for one epoch or two.
        expected = 3 * members * (7 * 2 + 4 * 2 + 2 * 4 + 1 * 8)
        assert expected < len(epochs) <= expected + 3 * members * 2
        for epoch, count in ((16, 1), (8, 2), (3, 4)):
            assert epochs.count(epoch) == 3 * members * count
        # Each round has the scores of a search that trains as long.
        for number, most in enumerate(search.n_resources_):
            whole = nn.MLPSearchCV(make(**{**given, "max_iter": most}), RATES, cv=3, scoring="neg_log_loss")
            expected_scores = whole.fit(X, Y).cv_results_
            for row in np.flatnonzero(results["iter"] == number):
                place = expected_scores["params"].index(results["params"][row])
                for key, values in scores_of(expected_scores).items():
                    if "rank" not in key:
                        np.testing.assert_array_equal(results[key][row], values[place], err_msg=key)
        # The best continue; one that failed is the worst.
        for number, count in enumerate(search.n_candidates_[1:]):
            mine, following = (np.flatnonzero(results["iter"] == each) for each in (number, number + 1))
            order = np.argsort(-np.nan_to_num(results["mean_test_score"][mine], nan=-np.inf), kind="stable")
            best = [results["params"][row] for row in mine[order[:count]]]
            assert [results["params"][row] for row in following] == best
        assert search.best_index_ == 14
        assert search.best_params_ == results["params"][14]
        assert search.best_score_ == results["mean_test_score"][14]

    def test_those_that_have_ended_train_no_more(self, epochs):
        scored = []

        def scoring(model, x, y):
            scored.append(None)
            return model.score(x, y)

        model = make(max_iter=30, tol=1.0, n_iter_no_change=1)
        search = nn.MLPSearchCV(
            model, {"alpha": [0, 1e-3]}, cv=2, halving=True, factor=2, min_epochs=2, refit=False, scoring=scoring
        ).fit(X, Y)
        assert search.n_resources_ == [15, 30]
        assert len(epochs) == 2 * 2 * 3
        assert len(scored) == 2 * 2

    @pytest.mark.parametrize(
        ("candidates", "most", "factor", "least", "counts", "epochs"),
        [
            (7, 50, 3, 5, [7, 3], [17, 50]),
            (30, 50, 3, 5, [30, 10, 4], [6, 17, 50]),
            (30, 50, 3, 1, [30, 10, 4, 2], [2, 6, 17, 50]),
            (4, 8, 2, 2, [4, 2, 1], [2, 4, 8]),
            (30, 50, 3, 51, [30], [50]),
        ],
    )
    def test_rounds(self, candidates, most, factor, least, counts, epochs):
        rounds = Rounds([trials.Trial(0, make(max_iter=most), 0, "")], candidates, factor, least)
        assert (rounds.counts, rounds.epochs) == (counts, epochs)

    def test_the_best_is_fitted_to_all_rows(self):
        model = make(max_iter=12)
        grid = {"learning_rate_init": [1e-5, 0.02, 0.03]}
        search = nn.MLPSearchCV(model, grid, cv=3, halving=True, min_epochs=4).fit(X, Y)
        assert search.n_candidates_ == [3, 1]
        assert same_weights(search.best_estimator_, clone(model).set_params(**search.best_params_).fit(X, Y))

    def test_few_candidates_or_epochs_are_one_round(self):
        for grid, options in ((GRID, {"min_epochs": 5}), ({"alpha": [1e-4]}, {"min_epochs": 1})):
            search = nn.MLPSearchCV(make(), grid, cv=3, halving=True, **options).fit(X, Y)
            assert search.n_resources_ == [4]
            theirs = GridSearchCV(make(), grid, cv=3).fit(X, Y)
            np.testing.assert_array_equal(search.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])

    def test_equal_numbers_of_epochs(self):
        with pytest.raises(InvalidInputError, match=r"max_iter has the values \[4, 9\]; give one"):
            nn.MLPSearchCV(make(), {"max_iter": [9, 4]}, cv=3, halving=True).fit(X, Y)

    def test_one_score_decides(self):
        options = {"scoring": ["accuracy", "f1_macro"], "cv": 3, "halving": True, "min_epochs": 1, "factor": 2}
        search = nn.MLPSearchCV(make(), GRID, refit="f1_macro", **options).fit(X, Y)
        assert search.n_candidates_ == [4, 2, 1]
        assert search.best_score_ == search.cv_results_["mean_test_f1_macro"][-1]
        with pytest.raises(InvalidInputError, match="compares one score; name it with refit, received False"):
            nn.MLPSearchCV(make(), GRID, refit=False, **options).fit(X, Y)

    @pytest.mark.parametrize("kind", ["loky", "threading"])
    def test_jobs(self, kind):
        model = make_pipeline(StandardScaler(), make(max_iter=8, early_stopping=True, random_state=None))
        grid = {f"mlpclassifier__{name}": values for name, values in GRID.items()}
        found = []
        for jobs in (1, 2):
            np.random.seed(3)  # noqa: NPY002
            with joblib.parallel_config(backend=kind, n_jobs=jobs):
                search = nn.MLPSearchCV(
                    model, grid, cv=3, halving=True, min_epochs=2, factor=2, refit=False, scoring="neg_log_loss"
                )
                found.append(search.fit(X, Y).cv_results_)
        assert list(found[0]["iter"]) == list(found[1]["iter"]) == [0] * 4 + [1] * 2 + [2]
        assert found[0]["params"] == found[1]["params"]
        for key, values in scores_of(found[0]).items():
            np.testing.assert_array_equal(found[1][key], values)
