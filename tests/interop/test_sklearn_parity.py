"""The same `random_state` gives the same weights as scikit-learn's estimators."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import neural_network

import nnbackend as nn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

#: With batches of 32 the last one has 8 rows.
ROWS, FEATURES, BATCH = 72, 5, 32

CLASSIFIERS = ("two classes", "three classes", "several labels a row")
KINDS = (*CLASSIFIERS, "a number", "three numbers")


def data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    x = generator.normal(size=(ROWS, FEATURES))
    score = np.sin(x @ generator.normal(size=(FEATURES, 3)))
    match kind:
        case "two classes":
            return x, np.where(score[:, 0] > 0, "yes", "no")
        case "three classes":
            return x, score.argmax(axis=1)
        case "several labels a row":
            return x, (score > 0).astype(int)
        case "a number":
            return x, score[:, 0]
        case _:
            return x, score


def row_weights(weighted: bool) -> np.ndarray | None:
    return np.random.default_rng(5).uniform(0.1, 4, ROWS) if weighted else None


def both(kind: str, **parameters):
    """Our estimator and scikit-learn's, with the same parameters."""
    name = "MLPClassifier" if kind in CLASSIFIERS else "MLPRegressor"
    parameters = {"hidden_layer_sizes": (7, 4), "batch_size": BATCH, "random_state": 3, **parameters}
    backend = parameters.pop("backend", "numpy")
    return getattr(nn, name)(**parameters, backend=backend), getattr(neural_network, name)(**parameters)


def assert_same(ours, theirs) -> None:
    for name in ("coefs_", "intercepts_"):
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            assert mine.dtype == other.dtype
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-10)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("loss_", "best_loss_", "best_validation_score_", "validation_scores_"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert mine == (None if other is None else pytest.approx(other, rel=1e-10)), name


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_targets_of_every_kind_with_a_strong_penalty_and_a_short_last_batch(kind, weighted, solver):
    x, y = data(kind)
    ours, theirs = both(kind, solver=solver, alpha=3.0, learning_rate_init=0.02, max_iter=12)
    weights = row_weights(weighted)
    assert_same(ours.fit(x, y, weights), theirs.fit(x, y, weights))
    found, expected = ours.predict(x), theirs.predict(x)
    if kind in CLASSIFIERS:
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-10)
        np.testing.assert_allclose(ours.predict_log_proba(x), theirs.predict_log_proba(x), atol=1e-8)
    else:
        np.testing.assert_allclose(found, expected, atol=1e-10)
    assert ours.score(x, y, weights) == pytest.approx(theirs.score(x, y, weights), abs=1e-10)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"batch_size": "auto", "alpha": 0},
        {"hidden_layer_sizes": 6, "activation": "logistic"},
        {"hidden_layer_sizes": (), "activation": "tanh"},
        {"activation": "identity", "shuffle": False},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.1},
        {"solver": "sgd", "momentum": 0},
        {"solver": "sgd", "nesterovs_momentum": False, "activation": "tanh"},
        {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.3, "learning_rate_init": 0.3},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.01, "n_iter_no_change": 2, "max_iter": 100},
        {"learning_rate": "adaptive", "tol": 0.02, "n_iter_no_change": 1, "max_iter": 50},
        {"tol": 0.005, "n_iter_no_change": 3, "max_iter": 100},
        {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2, "max_iter": 40},
        {"early_stopping": True, "tol": 0.05, "n_iter_no_change": 3, "max_iter": 60, "learning_rate_init": 0.01},
        {"early_stopping": True, "solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["two classes", "three classes", "three numbers"])
def test_every_parameter_means_the_same(kind, parameters):
    x, y = data(kind)
    ours, theirs = both(kind, **{"learning_rate_init": 0.05, "max_iter": 10, **parameters})
    weights = row_weights(kind == "three classes")
    assert_same(ours.fit(x, y, weights), theirs.fit(x, y, weights))
    if parameters.get("max_iter", 0) > 10:
        assert ours.n_iter_ < ours.max_iter


@pytest.mark.float64
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_every_backend_takes_the_same_steps(backend, solver, weighted):
    x, y = data("three classes")
    ours, theirs = both(
        "three classes", solver=solver, learning_rate="invscaling", alpha=2.0, max_iter=2, backend=backend
    )
    weights = row_weights(weighted)
    assert_same(ours.fit(x, y, weights), theirs.fit(x, y, weights))
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-10)


@pytest.mark.slow
def test_additional_calls_keep_a_step_compiled(caplog):
    x, y = data("several labels a row")
    model, _ = both("several labels a row", backend="numba", max_iter=1)
    with caplog.at_level("INFO", "nnbackend"):
        model.fit(x, y, row_weights(True))
    assert "with the compiled executor" in caplog.text


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("kind", KINDS)
def test_partial_fit_by_partial_fit(kind, solver):
    x, y = data(kind)
    ours, theirs = both(kind, solver=solver, learning_rate="invscaling", learning_rate_init=0.05, alpha=1.0)
    classes = {"classes": np.arange(3) if y.ndim == 2 else np.unique(y)} if kind in CLASSIFIERS else {}
    # Rows of the same kind in succession, and after others.
    for begin, end in ((0, 40), (40, 72), (10, 50), (20, 60), (30, 70), (0, 72)):
        weights = row_weights(end - begin == 40)
        part = slice(begin, end)
        weights = None if weights is None else weights[part]
        ours.partial_fit(x[part], y[part], weights, **classes)
        theirs.partial_fit(x[part], y[part], weights, **classes)
        assert_same(ours, theirs)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_warm_starts(solver):
    x, y = data("three classes")
    ours, theirs = both("three classes", solver=solver, warm_start=True, max_iter=6, tol=0, learning_rate_init=0.02)
    for _ in range(3):
        assert_same(ours.fit(x, y), theirs.fit(x, y))
    assert_same(ours.partial_fit(x, y), theirs.partial_fit(x, y))


def test_a_random_state_object_advances_equally():
    x, y = data("two classes")
    generators = np.random.RandomState(8), np.random.RandomState(8)
    ours, theirs = both("two classes", max_iter=3)
    for _ in range(2):
        ours.set_params(random_state=generators[0]).fit(x, y)
        theirs.set_params(random_state=generators[1]).fit(x, y)
        assert_same(ours, theirs)
    assert generators[0].randint(1 << 30) == generators[1].randint(1 << 30)


def test_float32_agrees_within_its_precision():
    x, y = data("three numbers")
    ours, theirs = both("three numbers", max_iter=10)
    ours.fit(x.astype(np.float32), y)
    theirs.fit(x.astype(np.float32), y)
    assert ours.coefs_[0].dtype == theirs.coefs_[0].dtype == np.float32
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=1e-4)
