"""MLPSearchCV has the results of scikit-learn's searches."""

from __future__ import annotations

import pickle
import warnings

import joblib
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import sklearn
from joblib.parallel import ThreadingBackend
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning, NotFittedError
from sklearn.metrics import accuracy_score, make_scorer, mean_absolute_error
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

import nnbackend as nn
from nnbackend.errors import InvalidInputError, TrainingDivergedError
from tests.interop import estimators
from tests.interop.estimators import LENGTHS, X, Y, both, same_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the test scores"),
]

SPARSE = scipy.sparse.csr_matrix(np.where(np.abs(X) > 0.5, X, 0))
GRID = {"alpha": [1e-4, 1e-1], "hidden_layer_sizes": [(6,), (3, 4)]}

numpy_and_numba = pytest.mark.parametrize("name", ["numpy", "numba"])


def make(estimator=nn.MLPClassifier, **parameters):
    """A small estimator; on Numba in float32, whose kernels other tests need, too."""
    parameters = {"max_iter": 4, **parameters}
    if parameters.get("backend") == "numba":
        parameters["dtype"] = "float32"
    return estimators.make(estimator, **parameters)


def scores_of(results):
    return {key: values for key, values in results.items() if "score" in key and "time" not in key}


def same_results(mine, theirs):
    """The searches agree in everything except times; the estimators have the same bits."""
    assert set(theirs.cv_results_) == set(mine.cv_results_)
    for key, values in scores_of(theirs.cv_results_).items():
        np.testing.assert_allclose(mine.cv_results_[key], values, rtol=0, atol=1e-12, err_msg=key)
    assert mine.cv_results_["params"] == theirs.cv_results_["params"]
    for key in theirs.cv_results_:
        assert mine.cv_results_[key].__class__ is theirs.cv_results_[key].__class__
        if key.startswith("param_"):
            assert mine.cv_results_[key].dtype == theirs.cv_results_[key].dtype
            assert list(mine.cv_results_[key]) == list(theirs.cv_results_[key])
    for attribute in ("best_index_", "best_params_", "best_score_", "n_splits_", "multimetric_"):
        assert hasattr(mine, attribute) == hasattr(theirs, attribute)
        if hasattr(theirs, attribute):
            np.testing.assert_equal(getattr(mine, attribute), getattr(theirs, attribute))
    assert hasattr(mine, "best_estimator_") == hasattr(theirs, "best_estimator_")
    if hasattr(theirs, "best_estimator_"):
        assert mine.refit_time_ > 0
        one, other = (
            each.best_estimator_[-1] if isinstance(each.best_estimator_, Pipeline) else each.best_estimator_
            for each in (mine, theirs)
        )
        assert same_weights(one, other)


class TestSameAsGridSearchCV:
    @both
    @numpy_and_numba
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"early_stopping": True, "max_iter": 12, "n_iter_no_change": 2},
            {"solver": "sgd", "learning_rate": "adaptive", "tol": 1e-2, "n_iter_no_change": 1, "max_iter": 12},
            {"dropout": 0.3, "batch_size": 33},
            {"n_members": 2},
        ],
        ids=str,
    )
    def test_every_kind_of_training(self, estimator, name, options):
        y = Y if estimator is nn.MLPClassifier else LENGTHS
        model = make(estimator, backend=name, **options)
        given = {"cv": 3, "return_train_score": True}
        same_results(nn.MLPSearchCV(model, GRID, **given).fit(X, y), GridSearchCV(model, GRID, **given).fit(X, y))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_every_backend(self, backend, dtype):
        model = estimators.make(backend=backend, dtype=dtype, max_iter=3)
        grid = {"alpha": [1e-4, 1], "learning_rate_init": [0.01, 0.03]}
        given = {"cv": 3, "scoring": "neg_log_loss"}
        same_results(nn.MLPSearchCV(model, grid, **given).fit(X, Y), GridSearchCV(model, grid, **given).fit(X, Y))

    @numpy_and_numba
    @pytest.mark.parametrize(
        "cv",
        [
            KFold(4, shuffle=True, random_state=3),
            RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=1),
            ShuffleSplit(2, random_state=0),
            # Masks, and numbers from the end.
            [(np.arange(150) % 3 > 0, np.arange(150) % 3 == 0), (np.arange(0, -100, -1), np.arange(20, 50))],
        ],
        ids=lambda cv: type(cv).__name__,
    )
    def test_every_splitter(self, name, cv):
        model = make(backend=name)
        same_results(nn.MLPSearchCV(model, GRID, cv=cv).fit(X, Y), GridSearchCV(model, GRID, cv=cv).fit(X, Y))

    def test_groups_and_weights(self):
        groups, weights = np.arange(150) % 7, np.linspace(0.2, 3, 150)
        given = {"groups": groups, "sample_weight": weights}
        searches = [kind(make(), GRID, cv=GroupKFold(3)).fit(X, Y, **given) for kind in (nn.MLPSearchCV, GridSearchCV)]
        same_results(*searches)

    @pytest.mark.parametrize(
        "options",
        [
            {"scoring": "f1_macro"},
            {"scoring": make_scorer(accuracy_score, greater_is_better=False)},
            {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"},
            {"scoring": ["accuracy", "neg_log_loss"], "refit": False},
            {"scoring": {"a": "accuracy", "b": "f1_micro"}, "refit": "b"},
            {"scoring": lambda model, x, y: {"a": model.score(x, y), "b": len(y)}, "refit": "a"},
            {"refit": lambda results: int(results["mean_test_score"].argmin())},
            {"refit": False},
            {"return_train_score": True},
        ],
        ids=["name", "scorer", "two", "two, no refit", "dict", "function", "choice", "no refit", "train"],
    )
    def test_scoring_and_refit(self, options):
        same_results(*(kind(make(), GRID, cv=3, **options).fit(X, Y) for kind in (nn.MLPSearchCV, GridSearchCV)))

    @numpy_and_numba
    def test_every_kind_of_rows(self, name):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, columns=[f"x{place}" for place in range(4)])
        several = np.c_[Y == 0, Y == 1].astype(int)
        names = np.array(["a", "b", "c"])[Y]
        pairs = [(SPARSE, Y), (frame, Y), (np.asfortranarray(X), names), (X.astype(np.float32), Y), (X.tolist(), Y)]
        for x, y in [*pairs, (X, several)]:
            given = {"cv": KFold(3, shuffle=True, random_state=0)}
            model = make(backend=name)
            mine, theirs = (kind(model, GRID, **given).fit(x, y) for kind in (nn.MLPSearchCV, GridSearchCV))
            same_results(mine, theirs)
            np.testing.assert_array_equal(mine.predict_proba(x), theirs.predict_proba(x))
            assert mine.score(x, y) == theirs.score(x, y)
            assert mine.n_features_in_ == 4
            assert hasattr(mine, "feature_names_in_") == (x is frame)

    @numpy_and_numba
    def test_a_pipeline(self, name):
        model = Pipeline([("scale", StandardScaler()), ("mlp", make(backend=name))])
        grid = [
            {"scale__with_mean": [True, False], "mlp__alpha": [1e-4, 1]},
            {"scale": ["passthrough", FunctionTransformer(lambda x: x / 3)], "mlp__activation": ["tanh"]},
            {"mlp": [make(nn.MLPRegressor, backend=name), make(backend=name, random_state=3)]},
        ]
        given = {"scoring": lambda model, x, y: float((np.round(model.predict(x)) == y).mean()), "cv": 3}
        weights = {"mlp__sample_weight": np.linspace(0.2, 3, 150)}
        same_results(*(kind(model, grid, **given).fit(X, Y, **weights) for kind in (nn.MLPSearchCV, GridSearchCV)))

    def test_distributions(self):
        from scipy.stats import loguniform

        spread = {"alpha": loguniform(1e-4, 10), "hidden_layer_sizes": [3, 5, 7]}
        mine = nn.MLPSearchCV(make(), param_distributions=spread, n_iter=5, random_state=3, cv=3).fit(X, Y)
        same_results(mine, RandomizedSearchCV(make(), spread, n_iter=5, random_state=3, cv=3).fit(X, Y))

    @numpy_and_numba
    def test_fits_that_fail(self, name):
        grid = {"learning_rate_init": [0.02, 1e300], "solver": ["sgd"], "alpha": [1e-4, -1]}
        for options in ({"error_score": np.nan}, {"error_score": -1.0}, {"scoring": ["accuracy"], "refit": "accuracy"}):
            found = []
            for kind in (nn.MLPSearchCV, GridSearchCV):
                with pytest.warns(FitFailedWarning, match="9 fits failed out of a total of 12"):
                    found.append(kind(make(backend=name), grid, cv=3, **options).fit(X, Y))
            same_results(*found)
        # The first of them in the order of the candidates.
        with pytest.raises(TrainingDivergedError):
            nn.MLPSearchCV(make(backend=name), grid, cv=3, error_score="raise").fit(X, Y)
        with pytest.raises(ValueError, match="All the 3 fits failed"):
            nn.MLPSearchCV(make(backend=name), {"alpha": [-1]}, cv=3).fit(X, Y)

    def test_a_row_that_is_wrong_fails_only_where_it_is_trained_on(self):
        rows = X.copy()
        rows[3, 0] = np.nan
        cv = [(np.arange(20, 150), np.arange(4, 20)), (np.arange(130), np.arange(130, 150))]
        found = []
        for kind in (nn.MLPSearchCV, GridSearchCV):
            with pytest.warns((FitFailedWarning, UserWarning)):
                found.append(kind(make(), GRID, cv=cv, refit=False).fit(rows, Y))
        same_results(*found)
        assert np.isfinite(found[0].cv_results_["split0_test_score"]).all()

    def test_a_score_that_fails(self):
        def broken(model, x, y):
            raise RuntimeError("no score")

        with pytest.raises(RuntimeError, match="no score"):
            nn.MLPSearchCV(make(), GRID, cv=3, scoring=broken, error_score="raise").fit(X, Y)
        with pytest.warns(UserWarning, match="Scoring failed"):
            search = nn.MLPSearchCV(make(), GRID, cv=3, scoring=broken, error_score=-7).fit(X, Y)
        assert (search.cv_results_["mean_test_score"] == -7).all()

    @pytest.mark.parametrize("kind", ["loky", "threading"])
    def test_jobs(self, kind):
        model = make_pipeline(StandardScaler(), make())
        grid = {"standardscaler__with_std": [True, False], "mlpclassifier__alpha": [1e-4, 1]}
        for each, spread in ((make(), GRID), (model, grid)):
            with joblib.parallel_config(backend=kind, n_jobs=2):
                mine = nn.MLPSearchCV(each, spread, cv=3).fit(X, Y)
            same_results(mine, GridSearchCV(each, spread, cv=3).fit(X, Y))
        same_results(nn.MLPSearchCV(make(), GRID, cv=3, n_jobs=2).fit(X, Y), GridSearchCV(make(), GRID, cv=3).fit(X, Y))

    @pytest.mark.slow
    def test_a_dask_cluster(self):
        distributed = pytest.importorskip("distributed")
        options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
            with joblib.parallel_config(backend="dask"):
                mine = nn.MLPSearchCV(make(), GRID, cv=3, n_jobs=2).fit(X, Y)
            # Each worker has trained its share, at once.
            done = client.run(lambda dask_worker: dask_worker.state.executed_count)
            assert list(done.values()) == [1, 1]
        same_results(mine, GridSearchCV(make(), GRID, cv=3).fit(X, Y))

    def test_within_other_searches(self):
        one, other = (cross_val_score(kind(make(), GRID, cv=2), X, Y, cv=3) for kind in (nn.MLPSearchCV, GridSearchCV))
        np.testing.assert_array_equal(one, other)

    def test_metadata_routing(self):
        weights = np.linspace(0.2, 3, 150)
        with sklearn.config_context(enable_metadata_routing=True):
            model = make_pipeline(StandardScaler(), make().set_fit_request(sample_weight=True))
            grid = {"mlpclassifier__alpha": [1e-4, 1]}
            scoring = make_scorer(accuracy_score).set_score_request(sample_weight=True)
            given = {"cv": GroupKFold(3), "scoring": scoring}
            params = {"sample_weight": weights, "groups": np.arange(150) % 5}
            model.steps[0][1].set_fit_request(sample_weight=False)
            same_results(*(kind(model, grid, **given).fit(X, Y, **params) for kind in (nn.MLPSearchCV, GridSearchCV)))


class Own(nn.MLPClassifier):
    """An estimator with its own `fit`."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y, sample_weight)


class TestRefusals:
    @pytest.mark.parametrize(
        "estimator",
        [sklearn.neural_network.MLPClassifier(), make_pipeline(make(), StandardScaler()), StandardScaler(), "mlp"],
        ids=str,
    )
    def test_other_estimators(self, estimator):
        with pytest.raises(ValueError, match=r"must be an nnbackend MLPClassifier.*GridSearchCV|must be an object"):
            nn.MLPSearchCV(estimator, GRID).fit(X, Y)

    def test_other_estimators_among_the_candidates(self):
        grid = {"mlpclassifier": [make(), sklearn.linear_model.LogisticRegression()]}
        with pytest.raises(InvalidInputError, match=r"the estimator of \{'mlpclassifier': LogisticRegression\(\)\}"):
            nn.MLPSearchCV(make_pipeline(PolynomialFeatures(), make()), grid).fit(X, Y)

    def test_a_fit_of_its_own(self):
        with pytest.raises(InvalidInputError, match="Own has a `fit` of its own"):
            nn.MLPSearchCV(Own(), GRID).fit(X, Y)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"param_grid": None}, "either param_grid or param_distributions, received neither"),
            ({"param_distributions": GRID}, "either param_grid or param_distributions, received both"),
            pytest.param(
                {"param_grid": [{"alpha": scipy.stats.uniform()}]},
                "param_grid has a distribution for 'alpha', .* give param_dis",
                id="distribution",
            ),
            ({"param_grid": {"alhpa": [1]}}, "Invalid parameter 'alhpa'"),
            ({"param_grid": {"alpha": []}}, "non-empty"),
            ({"cv": 1}, "n_splits"),
            ({"cv": []}, "CV iterator empty"),
            ({"n_iter": 0}, "'n_iter' parameter"),
            ({"factor": 1}, "'factor' parameter"),
            ({"min_epochs": 0}, "'min_epochs' parameter"),
            ({"scoring": "speed"}, "'scoring' parameter"),
            ({"error_score": "nan"}, "'error_score' parameter"),
            ({"scoring": ["accuracy"]}, "parameter refit must be set"),
        ],
        ids=str,
    )
    def test_arguments(self, options, message):
        search = nn.MLPSearchCV(**{"estimator": make(), "param_grid": GRID, "cv": 3, **options})
        with pytest.raises(ValueError, match=message):
            search.fit(X, Y)
        assert not [name for name in vars(search) if name.endswith("_")]

    def test_unknown_parameters_of_fit(self):
        with pytest.raises(InvalidInputError, match="fit of MLPClassifier takes sample_weight, but no 'weights'"):
            nn.MLPSearchCV(make(), GRID, error_score="raise").fit(X, Y, weights=np.ones(150))

    def test_callbacks_of_scikit_learn(self):
        callback = pytest.importorskip("sklearn.callback").ProgressBar()
        with pytest.raises(InvalidInputError, match="callbacks are not called"):
            nn.MLPSearchCV(make(), GRID).set_callbacks(callback).fit(X, Y)

    def test_a_search_that_fails_changes_nothing(self):
        search = nn.MLPSearchCV(make(), GRID, cv=3).fit(X, Y)
        before = search.predict_proba(X)
        search.set_params(error_score="raise", param_grid={"alpha": [-1]})
        with pytest.raises(InvalidInputError):
            search.fit(X, Y)
        np.testing.assert_array_equal(search.predict_proba(X), before)
        search.set_params(param_grid=GRID, refit=False).fit(X, Y)
        assert not hasattr(search, "best_estimator_")


class TestEstimator:
    def test_it_is_cloned_and_pickled(self):
        search = nn.MLPSearchCV(make(), GRID, cv=3).fit(X, Y)
        copy = pickle.loads(pickle.dumps(search))
        np.testing.assert_array_equal(copy.predict(X), search.predict(X))
        assert clone(search).get_params()["param_grid"] == GRID
        assert "MLPSearchCV" in repr(search)
        assert "MLPSearchCV" in search._repr_html_()

    def test_methods_are_those_of_the_best(self):
        search = nn.MLPSearchCV(make(), GRID, cv=3)
        with pytest.raises(NotFittedError):
            search.predict(X)
        search.fit(X, Y)
        best = search.best_estimator_
        for name in ("predict", "predict_proba", "predict_log_proba"):
            np.testing.assert_array_equal(getattr(search, name)(X), getattr(best, name)(X))
        assert search.score(X, Y) == best.score(X, Y)
        assert list(search.classes_) == [0, 1, 2]
        assert not hasattr(search, "transform")
        regressor = nn.MLPSearchCV(make(nn.MLPRegressor), GRID, cv=3, scoring=make_scorer(mean_absolute_error))
        assert regressor.fit(X, LENGTHS).score(X, LENGTHS) == mean_absolute_error(LENGTHS, regressor.predict(X))

    @pytest.mark.slow
    @pytest.mark.parametrize("estimator", [nn.MLPClassifier, nn.MLPRegressor])
    @pytest.mark.parametrize("options", [{}, {"halving": True, "min_epochs": 5, "factor": 2}], ids=["", "halving"])
    def test_check_estimator(self, estimator, options):
        from sklearn.utils.estimator_checks import check_estimator

        inner = estimator(
            hidden_layer_sizes=(8,), learning_rate_init=0.05, max_iter=25, backend="numpy", random_state=0
        )
        search = nn.MLPSearchCV(inner, {"alpha": [1e-4, 1e-2]}, cv=2, error_score="raise", **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = check_estimator(search, on_skip=None, on_fail=None)
        assert len(results) > 45
        not_passed = {result["check_name"] for result in results if result["status"] != "passed"}
        assert not_passed <= {
            # As for the estimators.
            "check_array_api_input",
            "check_classifiers_multilabel_output_format_decision_function",
        }


class _PicklingBackend(ThreadingBackend):
    """A backend of joblib as other packages register them: workers get and return pickles."""

    supports_sharedmem = False

    def submit(self, func, callback=None):
        return super().submit(_OfPickles(pickle.dumps(func)), callback)

    def effective_n_jobs(self, n_jobs):
        return 2


def test_validation_data_of_its_own_are_refused_with_the_reason():
    search = nn.MLPSearchCV(nn.MLPClassifier(backend="numpy"), {"alpha": [0.1]}, cv=2)
    with pytest.raises(InvalidInputError, match="X_val and y_val: every fit of a search is validated on the rows that"):
        search.fit(X, Y, X_val=X, y_val=Y)


class _OfPickles:
    """Calls a function that it has as a pickle, and passes its result through a pickle."""

    calls = 0

    def __init__(self, stored: bytes) -> None:
        self.stored = stored

    def __call__(self):
        type(self).calls += 1
        return pickle.loads(pickle.dumps(pickle.loads(self.stored)()))


@pytest.mark.parametrize("halving", [False, True])
def test_backends_of_joblib_that_other_packages_register(halving, monkeypatch):
    joblib.register_parallel_backend("nnbackend-pickling", _PicklingBackend)
    search = nn.MLPSearchCV(make(max_iter=12), {"alpha": [0.1, 1, 10]}, cv=2, n_jobs=2, halving=halving)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        alone = clone(search).set_params(n_jobs=None).fit(X, Y)
        monkeypatch.setattr(_OfPickles, "calls", 0)
        with joblib.parallel_config(backend="nnbackend-pickling"):
            search.fit(X, Y)
    assert _OfPickles.calls >= 2
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
    assert search.best_params_ == alone.best_params_
