"""Options of `fit` and estimators whose steps two kernels compute: limits, averages, weights and the losses shown."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.cupy import dense_step
from tests.backends.cupy.dense_networks import BATCH, FEATURES, OPTIMIZERS, RELU, ROWS, data, network, watched
from tests.helpers import images, same_weights

pytestmark = pytest.mark.usefixtures("needs_compiler")

LIMITED = ("softmax_cross_entropy", "sigmoid_cross_entropy")


def limited(name):
    """The loss that scikit-learn shows."""
    pytest.importorskip("sklearn")
    from nnbackend.interop.sklearn.losses import recorded_loss

    return recorded_loss(name, nn.NumpyBackend())


def trained(backend, layers="frozen", optimizer="sgd", kind="softmax_cross_entropy", **options):
    """The losses of all steps, and the network."""
    made = network(backend, layers) if isinstance(layers, str) else nn.Network(
        layers(), FEATURES, backend=backend, dtype="float64", seed=3
    )  # fmt: skip
    x, y = data(kind)
    given = {"loss": kind, "epochs": 2, "batch_size": BATCH, "verbose": False, **options}
    history = made.fit(x, y, optimizer=OPTIMIZERS[optimizer](), **given)
    return np.concatenate(history.step_losses), made


def assert_two_kernels(log, optimizer):
    assert set(log) - {"sum_rows"} <= {"rows_1", "rows_2", "rows_4", f"update_{optimizer}"}
    assert f"update_{optimizer}" in log


@pytest.mark.parametrize(
    ("layers", "optimizer", "options"),
    [
        ("frozen", "adam", {"clip_value": 1e-3}),
        ("scaled", "sgd", {"clip_value": 0.01, "ema": 0.8}),
        ("penalties", "nesterov", {"clip_value": 0.02, "ema": 0.5}),
        ("factors", "adamw", {"ema": 0.9}),
    ],
)
@pytest.mark.parametrize("order", [{}, {"reverse_threads": True, "reverse_blocks": True, "interleave": 2}])
def test_limits_of_gradients_and_averages_of_weights(layers, optimizer, options, order):
    backend, log = watched(**order)
    (losses, one), (expected, other) = (trained(each, layers, optimizer, **options) for each in (backend, "numpy"))
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    for name, array in other.get_weights().items():
        np.testing.assert_allclose(one.get_weights()[name], array, rtol=1e-9, atol=1e-9)
    # The option matters.
    plain, _ = trained("numpy", layers, optimizer)
    without, _ = trained("numpy", layers, optimizer, **{**options, "ema": None})
    if "clip_value" in options:
        assert abs(plain - without).max() > 1e-6
    assert_two_kernels(log, {"adamw": "adam", "nesterov": "sgd"}.get(optimizer, optimizer))


def test_gradients_that_are_not_numbers_are_not_limited():
    x, y = data("mean_squared_error")
    with pytest.raises(nn.errors.TrainingDivergedError):
        network(watched()[0], "dropout", "float32").fit(
            x, y, loss="mean_squared_error", optimizer=nn.SGD(1e30), clip_value=1e10, verbose=False
        )


# ---- losses whose recorded values are limited ------------------------------------------------------------------------


def far():
    """Logits of some hundreds, whose cross-entropies are beyond what probabilities of float64 can say."""
    return [nn.Scale(initializer=np.full(FEATURES, 300.0), trainable=False), nn.Dense(4)]


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LIMITED)
def test_limited_losses(name, weighted, rows, monkeypatch):
    """The recorded values are limited, the gradients are not."""
    monkeypatch.setattr(dense_step, "_ENOUGH_BLOCKS", {1: 64, 4: 2}[rows])
    weights = {"sample_weight": np.linspace(0, 1.5, ROWS)} if weighted else {}
    found = []
    backend, log = watched()
    for each in (backend, "numpy"):
        losses, made = trained(each, far, "adam", name, loss=limited(name), **weights)
        found.append((losses, made.get_weights()))
    assert_two_kernels(log, "adam")
    assert f"rows_{rows}" in log
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-10)
    for key, array in found[1][1].items():
        np.testing.assert_allclose(found[0][1][key], array, rtol=1e-9, atol=1e-9)
    unlimited, made = trained("numpy", far, "adam", name, **weights)
    assert (found[1][0] < 0.9 * unlimited).any()
    np.testing.assert_allclose(found[1][1]["layers.1.weight"], made.get_weights()["layers.1.weight"], rtol=1e-9)


def test_infinite_outputs_do_not_hide_behind_a_limit():
    """The loss of NaN is NaN."""
    x, y = data()
    made = nn.Network([nn.Dense(4)], FEATURES, backend=watched()[0])
    made.set_weights({"layers.0.weight": np.full((FEATURES, 4), 3e38), "layers.0.bias": np.zeros(4)})
    with pytest.raises(nn.errors.TrainingDivergedError):
        made.fit(x, y, loss=limited("softmax_cross_entropy"), verbose=False)


# ---- estimators ------------------------------------------------------------------------------------------------------

TARGETS = {
    "classes": ("MLPClassifier", lambda y: y),
    "two classes": ("MLPClassifier", lambda y: y % 2),
    "several labels": ("MLPClassifier", lambda y: np.eye(4, dtype=int)[y]),
    "numbers": ("MLPRegressor", lambda y: y.astype(float)),
}


def estimator(kind, backend, weighted=False, **options):
    warning = pytest.importorskip("sklearn.exceptions").ConvergenceWarning
    name, targets = TARGETS[kind]
    x, y = images(ROWS, FEATURES)
    given = {"max_iter": 2, "batch_size": BATCH, "random_state": 0, "tol": 0, "alpha": 0.1, "dtype": "float64"}
    model = getattr(nn, name)(hidden_layer_sizes=(9,), backend=backend, **{**given, **options})
    weights = {"sample_weight": np.linspace(0.5, 2, ROWS)} if weighted else {}
    with pytest.warns(warning):
        return model.fit(x / 255, targets(y), **weights)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", TARGETS)
def test_estimators(kind, weighted):
    """Weights of rows change the penalty's part of the gradient in each step."""
    backend, log = watched()
    one, other = (estimator(kind, each, weighted) for each in (backend, "numpy"))
    np.testing.assert_allclose(one.loss_curve_, other.loss_curve_, rtol=1e-10)
    for mine, theirs in zip([*one.coefs_, *one.intercepts_], [*other.coefs_, *other.intercepts_], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-10)
    assert log.count("update_adam") == 2 * 3


@pytest.mark.parametrize("kind", TARGETS)
def test_members_of_an_estimator_train_together(kind):
    backend, log = watched()
    estimator(kind, backend, n_members=3)
    assert log.count("update_adam") == log.count("rows_1") == 2 * 3


@pytest.mark.parametrize("name", ["TabularClassifier", "TabularRegressor"])
def test_members_of_an_estimator_for_tables_train_together(name):
    pytest.importorskip("sklearn")
    x, y = images(ROWS, FEATURES)
    backend, log = watched()
    options = {"recipe": "td-s", "hidden_layer_sizes": (8, 8), "epochs": 2, "batch_size": BATCH, "random_state": 0}
    found = [getattr(nn, name)(3, backend=each, dtype="float64", **options).fit(x, y) for each in (backend, "numpy")]
    np.testing.assert_allclose(found[0].predict(x), found[1].predict(x), rtol=1e-8)
    batches = -(-(ROWS - ROWS // 5) // BATCH)
    assert 0 < log.count("update_adam") <= 2 * (batches + 1)


def test_two_rows_of_a_block_where_four_do_not_fit():
    """As with the three layers of an estimator for tables."""
    layers = [*(nn.Dense(200, activation="mish") for _ in range(3)), nn.Dense(4)]
    x, y = images(ROWS, FEATURES)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_step, "_ENOUGH_BLOCKS", 1)
        for fits in (dense_step.SHARED_BYTES, 40 << 10):
            patch.setattr(dense_step, "SHARED_BYTES", fits)
            backend, log = watched()
            made.append(nn.Network(layers, FEATURES, backend=backend, seed=3))
            made[-1].fit(x, y, epochs=1, batch_size=ROWS, loss="softmax_cross_entropy", verbose=False)
            assert f"rows_{4 if fits > 40 << 10 else 2}" in log
    assert same_weights(*made)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "options"),
    [
        ([nn.Dense(4)], {"clip_norm": 1.0}),
        ([nn.Dense(4)], {"accumulate": 2}),
        # The gradient of the factors would be computed from the changed delta.
        ([nn.Dense(8, **RELU), nn.Scale(), nn.Dense(4)], {}),
    ],
)
def test_other_options_take_the_other_way(layers, options):
    x, y = data()
    found = []
    backend, log = watched()
    for each in (backend, "numpy"):
        made = nn.Network(layers, FEATURES, backend=each, dtype="float64", seed=3)
        history = made.fit(x, y, epochs=2, batch_size=BATCH, loss="softmax_cross_entropy", verbose=False, **options)
        found.append(np.concatenate(history.step_losses))
    np.testing.assert_allclose(*found, rtol=1e-9)
    assert not any(name.startswith("rows_") for name in log)
