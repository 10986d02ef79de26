"""L-BFGS, the Poisson loss and clipped losses, beside scikit-learn's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn import data as estimator_data
from nnbackend.interop.sklearn import lbfgs
from tests.interop.estimators import LENGTHS, X, Y, make
from tests.interop.test_sklearn_parity import CLASSIFIERS, data, row_weights
from tests.interop.test_sklearn_parity import both as both_of

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

KINDS = (*CLASSIFIERS, "a number", "three numbers", "counts", "three counts")


def rows_of(kind: str):
    """Data as of the tests of parity, and counts."""
    if "count" not in kind:
        return data(kind)
    x, y = data("a number" if kind == "counts" else "three numbers")
    return x, np.floor(np.exp(y + 1))


def pair(kind: str, **parameters):
    """Our estimator and scikit-learn's."""
    loss = {"loss": "poisson"} if "count" in kind else {}
    return both_of("a number" if "count" in kind else kind, **loss, **parameters)


def assert_close(ours, theirs, tolerance=1e-8) -> None:
    """The same weights, up to rounding, and the same attributes."""
    pairs = zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True)
    for mine, other in pairs:
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=tolerance)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(ours, name) == getattr(theirs, name), name


class TestLbfgs:
    @quiet
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("kind", KINDS)
    def test_takes_the_iterations_of_scikit_learn(self, kind, weighted):
        x, y = rows_of(kind)
        ours, theirs = pair(kind, solver="lbfgs", alpha=0.5, max_iter=12)
        weights = row_weights(weighted)
        assert_close(ours.fit(x, y, weights), theirs.fit(x, y, weights))
        assert ours.n_iter_ == 12
        found, expected = ours.predict(x), theirs.predict(x)
        assert found.dtype == expected.dtype
        if kind in CLASSIFIERS:
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, atol=1e-8)

    @pytest.mark.float64
    @quiet
    def test_on_every_backend(self, backend):
        x, y = data("three classes")
        ours, theirs = pair("three classes", solver="lbfgs", alpha=0.5, max_iter=3, backend=backend)
        weights = row_weights(True)
        assert_close(ours.fit(x, y, weights), theirs.fit(x, y, weights))

    @quiet
    @pytest.mark.parametrize("weighted", [False, True])
    def test_a_large_sparse_matrix_is_summed_over_chunks(self, weighted, monkeypatch):
        monkeypatch.setattr(estimator_data, "_SMALL", 0)
        monkeypatch.setattr(lbfgs, "_CHUNK", 25)
        x, y = rows_of("counts")
        weights = row_weights(weighted)
        ours, theirs = pair("counts", solver="lbfgs", alpha=0.5, max_iter=8)
        assert_close(ours.fit(scipy.sparse.csr_matrix(x), y, weights), theirs.fit(x, y, weights))

    def test_stops_by_tol_without_a_warning(self):
        x, y = data("a number")
        ours, theirs = pair("a number", solver="lbfgs", alpha=3.0, tol=0.05)
        with warnings.catch_warnings(action="error"):
            assert_close(ours.fit(x, y), theirs.fit(x, y))
        assert 1 < ours.n_iter_ < 200
        assert ours.loss_curve_[-1] == ours.loss_ == ours.best_loss_
        assert len(ours.loss_curve_) == ours.n_iter_
        assert ours.loss_curve_ == sorted(ours.loss_curve_, reverse=True)

    @pytest.mark.parametrize("limit", [{"max_iter": 2}, {"max_fun": 4}])
    def test_warns_at_its_limits(self, limit):
        x, y = data("a number")
        ours, theirs = pair("a number", solver="lbfgs", **limit)
        with pytest.warns(ConvergenceWarning, match="raise max_iter=.* or max_fun=") as caught:
            ours.fit(x, y)
        assert caught[0].filename == __file__
        with pytest.warns(ConvergenceWarning):
            assert_close(ours, theirs.fit(x, y))

    @quiet
    def test_warm_starts(self):
        x, y = data("two classes")
        ours, theirs = pair("two classes", solver="lbfgs", warm_start=True, max_iter=5)
        for _ in range(2):
            assert_close(ours.fit(x, y), theirs.fit(x, y))
        assert len(ours.loss_curve_) == 10
        # Another solver continues from these weights, which scikit-learn's estimators cannot.
        loss = ours.loss_
        ours.set_params(solver="adam", max_iter=1, learning_rate_init=1e-6).fit(x, y)
        assert ours.loss_ == pytest.approx(loss, rel=1e-3)

    @quiet
    def test_partial_fit_exists_for_other_solvers(self):
        x, y = data("two classes")
        model = make(solver="lbfgs", max_iter=3)
        assert not hasattr(model, "partial_fit")
        before = model.fit(x, y).coefs_[0]
        model.set_params(solver="adam").partial_fit(x, y)
        assert not np.array_equal(model.coefs_[0], before)

    @quiet
    def test_ignores_early_stopping_as_scikit_learn_does(self):
        one, other = (make(solver="lbfgs", early_stopping=stop).fit(X, Y) for stop in (True, False))
        assert np.array_equal(one.coefs_[0], other.coefs_[0])
        assert one.best_validation_score_ is None

    @quiet
    def test_float32_rows_are_computed_in_float64(self):
        x, y = data("a number")
        x = x.astype(np.float32)
        ours, theirs = pair("a number", solver="lbfgs", max_iter=5)
        assert_close(ours.fit(x, y), theirs.fit(x, y), tolerance=1e-5)
        assert ours.predict(x).dtype == np.float64

    @quiet
    def test_members_and_searches(self):
        model = make(solver="lbfgs", n_members=2, max_iter=3).fit(X, Y)
        one = make(solver="lbfgs", max_iter=3, random_state=model.estimators_[1].random_state).fit(X, Y)
        assert np.array_equal(model.estimators_[1].coefs_[0], one.coefs_[0])
        search = nn.MLPSearchCV(make(solver="lbfgs", max_iter=3), {"alpha": [1e-3, 1.0]}, cv=2).fit(X, Y)
        assert search.best_estimator_.n_iter_ == 3
        with pytest.raises(InvalidInputError, match="halving=True pauses trainings"):
            nn.MLPSearchCV(make(solver="lbfgs"), {"alpha": [1e-3, 1.0]}, cv=2, halving=True).fit(X, Y)

    def test_a_loss_that_is_not_finite(self):
        with pytest.raises(ValueError, match="Solver produced non-finite"):
            make(nn.MLPRegressor, solver="lbfgs").fit(X, LENGTHS * 1e200)


class TestPoisson:
    @quiet
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("solver", ["adam", "sgd"])
    @pytest.mark.parametrize("kind", ["counts", "three counts"])
    def test_batches(self, kind, solver, weighted):
        x, y = rows_of(kind)
        ours, theirs = pair(kind, solver=solver, alpha=1.0, learning_rate_init=0.01, max_iter=5)
        weights = row_weights(weighted)
        assert_close(ours.fit(x, y, weights), theirs.fit(x, y, weights))
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
        ours.partial_fit(x[:50], y[:50], weights if weights is None else weights[:50])
        theirs.partial_fit(x[:50], y[:50], weights if weights is None else weights[:50])
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-9)
        assert ours.out_activation_ == "exp"

    def test_on_every_backend(self, backend):
        x, y = rows_of("counts")
        x = x.astype(np.float32)
        ours, theirs = pair("counts", max_iter=2, backend=backend)
        with pytest.warns(ConvergenceWarning):
            np.testing.assert_allclose(ours.fit(x, y).predict(x), theirs.fit(x, y).predict(x), rtol=1e-4)


@quiet
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_reported_cross_entropy_is_clipped(kind, weighted, dtype):
    """Unscaled rows have probabilities of 0 and 1 for wrong classes."""
    x, y = data(kind)
    x = (x * 1e4).astype(dtype)
    ours, theirs = both_of(kind, max_iter=2)
    weights = row_weights(weighted)
    ours.fit(x, y, weights)
    with np.errstate(all="ignore"):
        theirs.fit(x, y, weights)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-5 if dtype == np.float32 else 1e-9)
    worst = -np.log(np.finfo(dtype).eps)
    # A mean over rows of which some are at the limit.
    assert worst / 10 < ours.loss_curve_[0] < 3 * worst


@quiet
def test_the_clipped_loss_on_every_backend(backend):
    x, y = data("several labels a row")
    for kind, target in (("several labels a row", y), ("three classes", y.sum(axis=1) % 3)):
        ours, theirs = both_of(kind, max_iter=1, backend=backend)
        weights = row_weights(True)
        ours.fit((x * 1e4).astype("float32"), target, weights)
        theirs.fit((x * 1e4).astype("float32"), target, weights)
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-4)


def test_weights_of_an_estimator_that_was_not_fitted():
    """As scikit-learn's own tests do: the caller sets them, and partial_fit starts there."""
    ours = make(nn.MLPRegressor, hidden_layer_sizes=(3,), solver="sgd", momentum=0, learning_rate_init=0.1)
    ours.coefs_, ours.intercepts_ = [np.ones((4, 3)), np.ones((3, 1))], [np.zeros(3), np.zeros(1)]
    ours.partial_fit(X[:1], [0.0])
    # The step of one row from the prediction p: d = p.
    hidden = np.maximum(X[0] @ np.ones((4, 3)), 0)
    prediction = hidden.sum()
    step = 0.1 * (prediction * hidden[:, None] + 1e-4)
    np.testing.assert_allclose(ours.coefs_[1], 1 - step, rtol=1e-12)
    assert ours.n_features_in_ == 4
