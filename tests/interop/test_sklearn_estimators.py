"""MLPClassifier and MLPRegressor among scikit-learn's tools: data of all kinds, copies, files, searches."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import threading
import tracemalloc

import joblib
import numpy as np
import pandas
import pytest
import scipy.sparse
import threadpoolctl
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_multilabel_classification
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn import base
from tests.conftest import make_backend
from tests.interop.estimators import LENGTHS, X, Y, both, make, same_weights

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class TestData:
    @both
    @pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
    def test_sparse_is_dense(self, estimator, kind):
        x = np.where(X > 0, X, 0)
        dense, sparse = make(estimator, early_stopping=True).fit(x, Y), make(estimator, early_stopping=True)
        assert same_weights(dense, sparse.fit(kind(x), Y))
        np.testing.assert_array_equal(dense.predict(x), sparse.predict(kind(x)))
        np.testing.assert_array_equal(dense.predict(kind(x)), sparse.predict(x))

    def test_predicting_sparse_rows_takes_memory_for_some_at_a_time(self):
        wide = scipy.sparse.random_array((8_000, 2_000), density=1e-3, rng=0, format="csr")
        model = make(hidden_layer_sizes=2, max_iter=1).partial_fit(wide[:20], np.arange(20) % 2, classes=[0, 1])
        tracemalloc.start()
        predicted = model.predict_proba(wide)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert predicted.shape == (8_000, 2)
        # All rows would take 128 MB.
        assert peak < 64e6

    @both
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_scikit_learn_checks_rows_once_at_most(self, estimator, dtype, monkeypatch):
        """A plain array needs none of its checks, except for NaN, which the network finds."""
        model = make(estimator, backend="numba").fit(X.astype(dtype), Y)
        validated = []
        original = base.validate_data
        monkeypatch.setattr(base, "validate_data", lambda *a, **b: validated.append(1) or original(*a, **b))
        outputs = model.predict if estimator is nn.MLPRegressor else model.predict_proba
        x = X.astype(dtype)
        expected = outputs(x)
        assert not validated
        frozen = x.copy()
        frozen.flags.writeable = False
        for rows in (x.tolist(), frozen, np.asfortranarray(x), x.astype(">f8"), np.repeat(x, 2, axis=0)[::2]):
            validated.clear()
            np.testing.assert_array_equal(outputs(rows), expected)
            assert validated == [1]
        for count in (2, len(x)):
            for bad in (np.nan, np.inf, -np.inf):
                wrong = x[:count].copy()
                wrong[-1, -1] = bad
                with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
                    outputs(wrong)
        with pytest.raises(ValueError, match="features"):
            outputs(x[:, :3])
        with pytest.raises(ValueError, match="0 sample"):
            outputs(x[:0])
        np.testing.assert_array_equal(outputs(x), expected)

    @both
    def test_names_of_features(self, estimator):
        table = pandas.DataFrame(X, columns=["sepals", "sepal width", "petals", "petal width"])
        model = make(estimator, early_stopping=True).fit(table, pandas.Series(Y))
        assert list(model.feature_names_in_) == list(table.columns)
        model.predict(table)
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(table.rename(columns={"petals": "leaves"}))
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            model.predict(X)

    @both
    @pytest.mark.parametrize(
        ("given", "asked", "expected"),
        [
            ("float64", "auto", "float64"),
            ("float32", "auto", "float32"),
            ("int64", "auto", "float64"),
            ("uint8", "auto", "float64"),
            ("float64", "float32", "float32"),
            ("float32", np.float64, "float64"),
        ],
    )
    def test_dtypes(self, estimator, given, asked, expected):
        x = (10 * X + 40).astype(given)
        model = make(estimator, dtype=asked).fit(x, Y)
        assert {array.dtype.name for array in model.coefs_ + model.intercepts_} == {expected}
        if estimator is nn.MLPRegressor:
            assert model.predict(x).dtype == expected
        # Bytes are ordinary numbers here, not images.
        assert same_weights(model, make(estimator, dtype=asked).fit(x.astype(expected), Y))
        # float32 stays float32.
        part = model.set_params(warm_start=True).fit(x.astype(float), Y)
        assert part.coefs_[0].dtype == expected

    def test_classes_of_any_type(self):
        for names in (["setosa", "versicolor", "virginica"], [-1.0, 7.0, 8.0], [2, 4, 9]):
            y = np.array(names)[Y]
            model = make(max_iter=60).fit(X, y)
            assert list(model.classes_) == names
            assert model.predict(X).dtype == y.dtype
            assert model.score(X, y) > 0.9
        assert make().fit(X, Y > 0).predict(X).dtype == bool
        model = make().fit(X, np.full(150, "only"))
        assert set(model.predict(X)) == {"only"}
        np.testing.assert_array_equal(model.predict_proba(X), np.ones((150, 1)))

    @pytest.mark.parametrize("sparse", [False, True])
    def test_several_labels_a_row(self, sparse):
        x, y = make_multilabel_classification(60, random_state=0)
        model = make(max_iter=200, hidden_layer_sizes=20).fit(scale(x), scipy.sparse.csr_array(y) if sparse else y)
        assert model.out_activation_ == "logistic"
        assert list(model.classes_) == list(range(5))
        probabilities = model.predict_proba(scale(x))
        assert np.ptp(probabilities.sum(axis=1)) > 0.1
        np.testing.assert_array_equal(model.predict(scale(x)), probabilities > 0.5)
        assert model.score(scale(x), y) > 0.9

    def test_layers_in_any_list(self):
        for sizes, shapes in (
            (5, [(4, 5), (5, 3)]),
            ((), [(4, 3)]),
            ([5, 2], [(4, 5), (5, 2), (2, 3)]),
            (np.array([5, 2]), [(4, 5), (5, 2), (2, 3)]),
        ):
            model = make(hidden_layer_sizes=sizes).fit(X, Y)
            assert [coef.shape for coef in model.coefs_] == shapes
            assert [intercept.shape for intercept in model.intercepts_] == [shape[1:] for shape in shapes]
            assert model.n_layers_ == len(shapes) + 1


class TestWeights:
    def test_cannot_be_changed_unseen(self):
        model = make().fit(X, Y)
        with pytest.raises(ValueError, match="read-only"):
            model.coefs_[0][0, 0] = 1
        with pytest.raises(ValueError, match="read-only"):
            copy.deepcopy(model).intercepts_[0][0] = 1

    def test_layers_may_be_replaced(self):
        model, other = make().fit(X, Y), make(random_state=1).fit(X, Y)
        model.coefs_, model.intercepts_ = list(other.coefs_), list(other.intercepts_)
        np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))
        mine = np.zeros((6, 3))
        model.coefs_[1] = mine
        model.intercepts_[1] = np.log([1.0, 2, 5])
        np.testing.assert_allclose(model.predict_proba(X[:1]), [[0.125, 0.25, 0.625]])
        # Writable arrays are checked again.
        mine[:] = np.inf
        with pytest.raises(InvalidInputError, match="do not fit what was fitted"):
            model.predict(X)
        model.coefs_[1] = np.zeros((5, 3))
        with pytest.raises(InvalidInputError, match=r"must have shape \(6, 3\)"):
            model.predict(X)


class TestDropout:
    def test_is_of_training_alone_and_the_same_everywhere(self):
        plain, dropping = make().fit(X, Y), make(dropout=0.3).fit(X, Y)
        assert not same_weights(plain, dropping)
        np.testing.assert_array_equal(dropping.predict_proba(X), dropping.predict_proba(X))
        assert same_weights(dropping, make(dropout=0.3).fit(X, Y))
        assert not same_weights(dropping, make(dropout=0.3, random_state=1).fit(X, Y))
        padded = make(dropout=0.3, backend=make_backend("numpy-padded")).fit(X, Y)
        np.testing.assert_allclose(padded.coefs_[0], dropping.coefs_[0], atol=1e-10)

    def test_every_epoch_has_its_own_masks_also_after_resuming(self):
        # With this rate nothing is learned, so losses differ only by the masks.
        options = {"dropout": 0.5, "shuffle": False, "learning_rate_init": 1e-300, "tol": 0, "max_iter": 4}
        whole = make(**options).fit(X, Y)
        assert len({round(loss, 6) for loss in whole.loss_curve_}) == 4
        parts = make(**{**options, "max_iter": 2}, warm_start=True).fit(X, Y)
        pickle.loads(pickle.dumps(parts)).partial_fit(X, Y)
        parts = pickle.loads(pickle.dumps(parts)).fit(X, Y)
        assert parts.loss_curve_ == whole.loss_curve_
        other = make(**options, random_state=1).partial_fit(X, Y, classes=[0, 1, 2])
        other.coefs_, other.intercepts_ = whole.coefs_, whole.intercepts_
        loss = other.partial_fit(X, Y).loss_
        assert min(abs(loss - another) for another in whole.loss_curve_) > 1e-6


class TestCopies:
    @both
    @pytest.mark.parametrize("solver", ["adam", "sgd"])
    def test_a_copy_continues_like_the_original(self, estimator, solver, tmp_path):
        model = make(estimator, solver=solver, dropout=0.1, learning_rate="invscaling").fit(X, Y)
        joblib.dump(model, tmp_path / "model.joblib")
        copies = [
            pickle.loads(pickle.dumps(model)),
            copy.deepcopy(model),
            joblib.load(tmp_path / "model.joblib"),
            joblib.load(tmp_path / "model.joblib", mmap_mode="r"),
        ]
        expected = model.predict(X)
        for _ in range(2):
            model.partial_fit(X, Y)
        for other in copies:
            np.testing.assert_array_equal(other.predict(X), expected)
            for _ in range(2):
                other.partial_fit(X, Y)
            assert same_weights(other, model)
            assert other.loss_curve_ == model.loss_curve_

    def test_a_copy_of_a_copy_that_was_not_used(self):
        model = make().fit(X, Y)
        twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(model))))
        assert same_weights(twice.partial_fit(X, Y), model.partial_fit(X, Y))

    def test_a_clone_has_the_parameters_and_a_backend_is_not_copied(self):
        device = make_backend("numpy-padded")
        model = make(backend=device, dropout=0.1).fit(X, Y)
        fresh = clone(model)
        assert fresh.get_params() == model.get_params()
        assert fresh.backend is device
        assert not hasattr(fresh, "coefs_")

    def test_a_pickle_names_its_backend_only_when_used(self):
        model = make().fit(X, Y)
        expected = model.predict(X)
        elsewhere = pickle.loads(pickle.dumps(model.set_params(backend="cupy")))
        model.set_params(backend="numpy")
        assert elsewhere.coefs_[0].shape == (4, 6)
        np.testing.assert_array_equal(elsewhere.set_params(backend="numpy").predict(X), expected)

    def test_a_fitted_estimator_moves_with_its_whole_state(self):
        plain = make(alpha=0.1).fit(X, Y)
        moving = make(alpha=0.1).fit(X, Y)
        for name in ("numpy-padded", "numpy", "numpy-padded"):
            moving.set_params(backend=make_backend(name)).partial_fit(X, Y)
            plain.partial_fit(X, Y)
            np.testing.assert_allclose(moving.coefs_[0], plain.coefs_[0], atol=1e-12)

    def test_many_threads_may_predict_with_a_copy(self):
        model = make().fit(X, Y)
        expected, wrong = model.predict_proba(X), []
        for _ in range(10):
            other = pickle.loads(pickle.dumps(model))

            def look(other=other):
                if not np.array_equal(other.predict_proba(X), expected):
                    wrong.append(1)

            threads = [threading.Thread(target=look) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not wrong


class TestTools:
    @pytest.mark.slow
    def test_a_search_in_two_processes_shares_out_the_cores(self):
        def threads_in_use(model, x, y):
            """The numbers of threads of this process's backend and BLAS."""
            libraries = threadpoolctl.threadpool_info()
            return max(nn.get_backend("numpy").products.threads, *(found["num_threads"] for found in libraries))

        search = GridSearchCV(
            make_pipeline(StandardScaler(), make(hidden_layer_sizes=3)),
            {"mlpclassifier__alpha": [1e-4, 1.0]},
            scoring={"accuracy": "accuracy", "threads": threads_in_use},
            refit="accuracy",
            cv=2,
            n_jobs=2,
            error_score="raise",
        ).fit(X, Y)
        get_reusable_executor().shutdown(wait=True)
        assert search.score(X, Y) == pytest.approx(search.best_estimator_.score(X, Y))
        # Two processes on all cores would be twice as many threads as there are cores.
        assert max(search.cv_results_["mean_test_threads"]) <= max(joblib.cpu_count() // 2, 1)

    def test_threads_of_one_process_have_the_same_results(self):
        with joblib.parallel_backend("threading", n_jobs=4):
            scores = cross_val_score(make(nn.MLPRegressor), X, LENGTHS, cv=4)
        np.testing.assert_array_equal(scores, cross_val_score(make(nn.MLPRegressor), X, LENGTHS, cv=4))

    def test_calibration(self):
        model = CalibratedClassifierCV(make(max_iter=60), cv=2).fit(X, Y, sample_weight=np.linspace(1, 2, 150))
        assert model.score(X, Y) > 0.9

    def test_options_of_a_backend_are_in_its_name(self):
        shown = repr(nn.MLPClassifier(backend="numba", dropout=0.1))
        assert shown == "MLPClassifier(backend='numba', dropout=0.1)"


def test_scikit_learn_is_imported_on_demand_and_its_absence_is_one_error():
    script = """
import sys
sys.modules["sklearn"] = None
import nnbackend
try:
    nnbackend.MLPClassifier
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 'need scikit-learn 1.6 or newer: pip install -e ".[sklearn]"' in done.stdout


def test_the_estimators_share_all_parameters_except_their_own():
    classifier = inspect.signature(nn.MLPClassifier.__init__).parameters
    regressor = inspect.signature(nn.MLPRegressor.__init__).parameters
    common = [name for name in classifier if name != "class_weight"]
    assert common == [name for name in regressor if name != "loss"]
    assert [classifier[name] for name in common] == [regressor[name] for name in common]
