"""Losses as objects: their values and gradients, what they predict, files, and losses of the user."""

from __future__ import annotations

import copy
import json
import logging

import numpy as np
import pytest

import nnbackend as nn
from nnbackend import losses
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.losses import Custom, Focal, Huber, LogCosh, MeanAbsoluteError, Poisson, Quantile
from nnbackend.testing import check_gradients
from tests.helpers import any_device, same_weights

ROWS, FEATURES, OUTPUTS = 24, 5, 3
GENERATOR = np.random.default_rng(4)
X = GENERATOR.normal(size=(ROWS, FEATURES))
VALUES = GENERATOR.uniform(size=(ROWS, OUTPUTS))
LABELS = GENERATOR.integers(0, OUTPUTS, ROWS)
WEIGHTS = GENERATOR.uniform(0.5, 2, ROWS)

#: Each loss with targets.
CASES = [
    (MeanAbsoluteError(), VALUES),
    (Huber(0.3), VALUES),
    (Quantile([0.1, 0.5, 0.8]), VALUES[:, 0]),
    (LogCosh(), VALUES),
    (Poisson(), np.round(5 * VALUES)),
    (Focal(), LABELS),
    (Focal(1.5, "sigmoid"), VALUES),
]
named = pytest.mark.parametrize(("loss", "y"), CASES, ids=[repr(loss) for loss, _ in CASES])


def softplus_error(outputs, targets):
    """A loss that no backend has: log(1 + exp(d)) - d / 2, the sum over outputs."""
    d = outputs - targets
    return (np.logaddexp(0, d) - d / 2).sum(axis=1)


def softplus_slope(outputs, targets):
    return 1 / (1 + np.exp(targets - outputs)) - 0.5


class OnAnyDevice(Custom):
    """Its functions are NumPy's, and the arrays of the emulated GPU are not."""

    def __call__(self, backend, *arrays):
        any_device(super().__call__)(backend, *arrays)


def own_loss():
    return OnAnyDevice(softplus_error, softplus_slope)


class TwiceHuber(nn.losses.Loss):
    """A loss of recorded operations: twice Huber's, through a weight of 2 for every row."""

    def record(self, step, outputs, targets, weights, gradient, row_losses):
        doubled = step.constant(np.full(outputs.shape[0], 2.0))
        deltas = step.constant(np.full(outputs.shape[1], 0.3))
        assert weights is None
        step.record("elementwise_loss", outputs, targets, doubled, "huber", deltas, gradient, row_losses)


def network(backend, dtype="float64", outputs=OUTPUTS):
    layers = [nn.Dense(7, activation="tanh"), nn.Dense(outputs)]
    return nn.Network(layers, FEATURES, backend=backend, dtype=dtype, seed=1)


def trained(backend, loss, y, dtype="float32", **options):
    net = network(backend, dtype)
    history = net.fit(X, y, epochs=3, batch_size=10, loss=loss, optimizer=nn.Adam(0.01), verbose=False, **options)
    return net, np.concatenate(history.step_losses)


# ---- gradients and values --------------------------------------------------------------------------------------------


@pytest.mark.float64
@named
def test_gradients(backend, loss, y):
    check_gradients(network(backend), X, y, loss=loss, sample_weight=WEIGHTS, samples=6)


@pytest.mark.float64
def test_gradients_of_a_loss_of_the_user(backend):
    check_gradients(network(backend), X, VALUES, loss=own_loss(), sample_weight=WEIGHTS, samples=6)
    check_gradients(network(backend), X, VALUES, loss=own_loss(), samples=6)


@named
def test_every_backend_trains_alike(backend, loss, y):
    expected, reference = trained("numpy", loss, y, sample_weight=WEIGHTS)
    net, step_losses = trained(backend, loss, y, sample_weight=WEIGHTS)
    np.testing.assert_allclose(step_losses, reference, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(net.predict(X), expected.predict(X), rtol=1e-3, atol=1e-4)


def test_a_loss_of_the_user_trains_alike_on_every_backend(backend):
    _, reference = trained("numpy", own_loss(), VALUES, sample_weight=WEIGHTS)
    _, step_losses = trained(backend, own_loss(), VALUES, sample_weight=WEIGHTS)
    np.testing.assert_allclose(step_losses, reference, rtol=2e-4)
    assert reference[-3:].mean() < reference[:3].mean()


def evaluated(loss, outputs, targets):
    """The loss of a network that returns its inputs."""
    net = nn.Network([nn.Activation("identity")], np.shape(outputs)[1], backend="numpy", dtype="float64")
    return net.evaluate(outputs, targets, loss=loss)["loss"]


def test_values():
    outputs, targets = np.array([[0.0, 3.0], [1.0, -2.0]]), np.array([[0.5, 1.0], [1.0, 1.0]])
    # Errors of -0.5, 2, 0 and -3.
    assert evaluated("mae", outputs, targets) == pytest.approx(5.5 / 4)
    assert evaluated(Huber(1.0), outputs, targets) == pytest.approx((0.125 + 1.5 + 0 + 2.5) / 4)
    assert evaluated("log_cosh", outputs, targets) == pytest.approx(np.log(np.cosh([0.5, 2, 0, 3])).mean())
    rates = np.exp(outputs)
    assert evaluated("poisson", outputs, np.abs(targets)) == pytest.approx((rates - np.abs(targets) * outputs).mean())
    # Of 3 and -2 for the target 1, at levels 0.25 and 0.75.
    crossed = evaluated(Quantile([0.25, 0.75]), np.array([[3.0, -2.0]]), np.array([1.0]))
    assert crossed == pytest.approx((0.75 * 2 + 0.75 * 3) / 2)


def test_focal_losses():
    logits = 3 * GENERATOR.normal(size=(9, 4))
    labels = GENERATOR.integers(0, 4, 9)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = p[np.arange(9), labels]
    assert evaluated(Focal(2.0), logits, labels) == pytest.approx((-((1 - true) ** 2) * np.log(true)).mean())
    q, t = 1 / (1 + np.exp(-logits)), np.eye(4)[labels]
    expected = -t * (1 - q) ** 0.7 * np.log(q) - (1 - t) * q**0.7 * np.log(1 - q)
    assert evaluated(Focal(0.7, "sigmoid"), logits, t) == pytest.approx(expected.mean())


@pytest.mark.parametrize(
    ("focal", "plain"),
    [(Focal(0.0), "softmax_cross_entropy"), (Focal(0.0, "sigmoid"), "sigmoid_cross_entropy")],
)
def test_focal_without_gamma_is_the_cross_entropy(focal, plain):
    (net, one), (other, two) = (trained("numpy", loss, LABELS, "float64") for loss in (focal, plain))
    np.testing.assert_allclose(one, two, rtol=1e-12)
    np.testing.assert_allclose(net.predict(X), other.predict(X), rtol=1e-9)
    assert net.evaluate(X, LABELS)["accuracy"] == other.evaluate(X, LABELS)["accuracy"]


def test_quantiles_are_learned():
    x = np.random.default_rng(0).normal(size=(4000, 1))
    y = np.random.default_rng(1).normal(size=4000)
    net = nn.Network([nn.Dense(3)], 1, backend="numpy", seed=0)
    net.fit(x, y, epochs=30, batch_size=50, loss=Quantile([0.05, 0.5, 0.9]), optimizer=nn.Adam(0.01), verbose=False)
    shares = (y[:, None] < net.predict(x)).mean(axis=0)
    np.testing.assert_allclose(shares, [0.05, 0.5, 0.9], atol=0.03)


def test_poisson_predicts_rates():
    x = np.random.default_rng(0).uniform(-1, 1, size=(3000, 1))
    y = np.random.default_rng(1).poisson(np.exp(1 + x[:, 0]))
    net = nn.Network([nn.Dense(1)], 1, backend="numpy", seed=0)
    net.fit(x, y, epochs=30, loss="poisson", optimizer=nn.Adam(0.01), verbose=False)
    np.testing.assert_allclose(net.predict([[0.0], [1.0]])[:, 0], np.exp([1, 2]), rtol=0.1)


# ---- label smoothing -------------------------------------------------------------------------------------------------


def test_smoothed_labels_are_the_mixture_with_a_uniform_distribution(backend):
    for loss, uniform in (("softmax_cross_entropy", 1 / OUTPUTS), ("sigmoid_cross_entropy", 0.5)):
        mixed = 0.8 * np.eye(OUTPUTS)[LABELS] + 0.2 * uniform
        _, expected = trained("numpy", loss, mixed)
        for y in (LABELS, np.eye(OUTPUTS)[LABELS]):
            _, step_losses = trained(backend, loss, y, label_smoothing=0.2)
            np.testing.assert_allclose(step_losses, expected, rtol=1e-4)


def test_label_smoothing_is_for_training_only():
    net = network("numpy")
    history = net.fit(X, LABELS, epochs=2, loss="cce", label_smoothing=0.3, validation_data=(X, LABELS), verbose=False)
    assert history["val_loss"][-1] == pytest.approx(net.evaluate(X, LABELS)["loss"], rel=1e-12)
    assert 0 <= history["accuracy"][-1] <= 1
    assert net.loss == losses.SoftmaxCrossEntropy()


@pytest.mark.parametrize("loss", ["mse", "focal", "huber"])
def test_label_smoothing_is_refused_for_other_losses(loss):
    net = network("numpy")
    with pytest.raises(InvalidInputError, match="label_smoothing is for the cross-entropies"):
        net.fit(X, LABELS, loss=loss, label_smoothing=0.1)
    assert net.loss is None


@pytest.mark.parametrize("smoothing", [-0.1, 1, "0.1", np.nan])
def test_label_smoothing_must_be_a_fraction(smoothing):
    with pytest.raises(InvalidInputError, match="label_smoothing must be"):
        network("numpy").fit(X, LABELS, loss="cce", label_smoothing=smoothing)


# ---- names and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alias", "name"), losses.ALIASES.items())
def test_aliases(alias, name):
    assert losses.get_loss(alias) is losses.LOSSES[name]


def test_equal_arguments_make_equal_losses():
    assert Huber(2.0) == Huber(2.0) != Huber(1.0)
    assert hash(Quantile(0.5)) == hash(Quantile([0.5]))
    assert losses.get_loss("huber") == Huber()
    assert own_loss() == own_loss()
    assert Focal() != Huber()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Huber(0), "delta must be above 0, received 0"),
        (lambda: Huber("1"), "delta must be a finite number"),
        (lambda: Quantile([0.5, 0.1]), "levels must be between 0 and 1, in increasing order"),
        (lambda: Quantile([]), "levels must be between 0 and 1"),
        (lambda: Quantile(1.0), "levels must be between 0 and 1"),
        (lambda: Focal(-1), "gamma must be at least 0"),
        (lambda: Focal(2, "tanh"), "unknown output_activation 'tanh'"),
        (lambda: Custom(3, softplus_slope), "value must be a function"),
        (lambda: Custom(softplus_error, softplus_slope, targets="classes"), "unknown targets 'classes'"),
        (lambda: losses.get_loss("quantile"), "the quantile loss needs levels"),
        (lambda: losses.get_loss(Huber), r"received the class Huber; make one: Huber\(\)"),
        (lambda: losses.get_loss("mean_square_error"), "did you mean 'mean_squared_error'"),
        (lambda: network("numpy").fit(X, VALUES[:, 0], loss=Quantile(0.5)), "needs one output for each of 1 levels"),
        (
            lambda: nn.Network([nn.Dense(2, "softmax")], X.shape[1], backend="numpy").fit(
                X, VALUES[:, 0], loss=Quantile([0.1, 0.9])
            ),
            "the softmax of the last layer makes its outputs probabilities",
        ),
        (lambda: network("numpy").fit(X, VALUES, loss=Quantile([0.1, 0.5, 0.9])), "so y must have one for each row"),
        (lambda: network("numpy").fit(X, -VALUES, loss="poisson"), "targets of poisson are counts or rates"),
        (lambda: network("numpy", outputs=1).fit(X, LABELS > 0, loss="focal"), r"use loss=nn.losses.Focal\(2, 'sigm"),
        (lambda: network("numpy").fit(X, 2 * VALUES, loss=Focal(1, "sigmoid")), r"targets of focal must be in \[0, 1"),
    ],
)
def test_errors(make, message):
    with pytest.raises((InvalidInputError, UnknownNameError), match=message):
        make()


def test_a_function_that_returns_another_shape_is_named():
    for functions, what in (
        ((lambda a, t: a - t, softplus_slope), "value"),
        ((softplus_error, lambda a, t: 1.0), "gradient"),
    ):
        net = network("numpy")
        before = net.get_weights()
        with pytest.raises(InvalidInputError, match=f"{what} of the loss mine must return an array of shape"):
            net.fit(X, VALUES, loss=Custom(*functions, name="mine"), epochs=1, verbose=False)
        assert all((before[name] == weights).all() for name, weights in net.get_weights().items())


# ---- losses of the user ----------------------------------------------------------------------------------------------


def test_a_loss_of_recorded_operations(backend):
    _, expected = trained("numpy", Huber(0.3), VALUES)
    net, step_losses = trained(backend, TwiceHuber(), VALUES)
    # Adam takes the same steps for any factor of the gradients.
    np.testing.assert_allclose(step_losses, 2 * expected, rtol=1e-3)
    assert net.loss == TwiceHuber()
    if backend.name == "numba":
        assert "compiled" in net.summary()
        assert "TwiceHuber is a user-defined function" not in net.summary()


def test_the_log_and_the_summary_say_that_functions_run_from_python(caplog):
    net = network("numba", "float32")
    with caplog.at_level(logging.INFO, "nnbackend"):
        net.fit(X, VALUES, epochs=1, loss=Custom(softplus_error, softplus_slope), verbose=False)
    assert "softplus_error is a user-defined function" in caplog.text
    assert "softplus_error is a user-defined function" in net.summary()


def test_classes_of_a_custom_loss():
    """Cross-entropy again, from two functions: labels, accuracy and predictions are those of classes."""

    def probabilities(logits):
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def value(logits, labels):
        return -np.log(probabilities(logits)[np.arange(len(labels)), labels])

    def gradient(logits, labels):
        return probabilities(logits) - np.eye(logits.shape[1])[labels]

    mine = Custom(value, gradient, "mine", output_activation="softmax", targets="exclusive")
    one, first = trained("numpy", mine, LABELS, "float64", sample_weight=WEIGHTS)
    other, second = trained("numpy", "cce", LABELS, "float64", sample_weight=WEIGHTS)
    np.testing.assert_allclose(first, second, rtol=1e-10)
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=1e-8)
    assert one.evaluate(X, LABELS)["accuracy"] == other.evaluate(X, LABELS)["accuracy"]


def test_batches_one_by_one():
    net = network("numpy")
    metrics = [net.train_on_batch(X, VALUES, loss=Huber(delta), optimizer=None)["loss"] for delta in (0.2, 0.2, 5.0)]
    assert metrics[1] < metrics[0] < metrics[2]


# ---- files, checkpoints, copies --------------------------------------------------------------------------------------


@named
def test_files_keep_the_loss(tmp_path, loss, y):
    net, _ = trained("numpy", loss, y)
    net.save(tmp_path / "model.safetensors")
    again = nn.Network.load(tmp_path / "model.safetensors", backend="numpy")
    assert again.loss == loss
    assert json.loads(json.dumps(net.config())) == net.config()
    np.testing.assert_array_equal(again.predict(X), net.predict(X))
    assert again.evaluate(X, y) == net.evaluate(X, y)
    again.fit(X, y, epochs=1, verbose=False)


def test_a_file_keeps_what_a_loss_of_the_user_predicts(tmp_path):
    loss = Custom(softplus_error, softplus_slope, output_activation="sigmoid")
    net, _ = trained("numpy", loss, VALUES)
    net.save(tmp_path / "model.safetensors")
    again = nn.Network.load(tmp_path / "model.safetensors", backend="numpy")
    np.testing.assert_array_equal(again.predict(X), net.predict(X))
    for use in (again.fit, again.evaluate):
        with pytest.raises(InvalidInputError, match="loss of your own, 'softplus_error', which files do not contain"):
            use(X, VALUES)
    assert again.evaluate(X, VALUES, loss=loss) == net.evaluate(X, VALUES)
    assert copy.deepcopy(net).loss == loss


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "huber", "delta": 1.0, "gamma": 2}, "a configuration of the loss huber is wrong"),
        ({"name": "huber", "delta": -1}, "delta must be above 0"),
        ({"name": "hubert"}, "unknown loss 'hubert'"),
        ({"delta": 1.0}, "the name of a loss must be text"),
        ({"name": "mine", "output_activation": [], "targets": "numbers"}, "unknown output_activation"),
        ({"name": "mine", "output_activation": "tanh", "targets": "labels"}, "unknown targets"),
        ({"name": "quantile", "levels": {}}, "a level must be a finite number"),
        ([], "unknown loss"),
    ],
)
def test_hostile_descriptions(config, message):
    with pytest.raises((InvalidInputError, UnknownNameError), match=message):
        nn.Network.from_config({**network("numpy").config(), "loss": config})


@pytest.mark.parametrize("loss", [Huber(0.3), own_loss()], ids=["named", "own"])
def test_resumed_runs_are_those_that_were_not_interrupted(tmp_path, loss):
    whole = network("numba", "float32")
    whole.fit(X, VALUES, epochs=4, loss=loss, verbose=False)
    for epochs in (2, 4):
        net = network("numba", "float32")
        options = {"callbacks": [nn.Checkpoint(tmp_path)], "resume": True, "verbose": False}
        net.fit(X, VALUES, epochs=epochs, loss=loss, **options)
    assert same_weights(net, whole)


def test_a_run_with_another_loss_is_not_resumed(tmp_path):
    options = {"epochs": 1, "callbacks": [nn.Checkpoint(tmp_path)], "resume": True, "verbose": False}
    network("numpy").fit(X, LABELS, loss="cce", label_smoothing=0.1, **options)
    with pytest.raises(InvalidInputError, match="label_smoothing"):
        network("numpy").fit(X, LABELS, loss="cce", **options)
    with pytest.raises(InvalidInputError, match="belongs to another run"):
        network("numpy").fit(X, LABELS, loss=Focal(3.0), label_smoothing=0, **options)


def test_an_ensemble_of_rates(tmp_path):
    nets = [trained("numpy", "poisson", 5 * VALUES)[0] for _ in range(2)]
    ensemble = nn.Ensemble(nets)
    assert ensemble.evaluate(X, 5 * VALUES)["loss"] == pytest.approx(nets[0].evaluate(X, 5 * VALUES)["loss"], rel=1e-5)
    other, _ = trained("numpy", Huber(2.0), VALUES)
    with pytest.raises(InvalidInputError, match=r"one has poisson, the other Huber\(delta=2.0\)"):
        nn.Ensemble([nets[0], other]).predict(X)


def test_many_networks_with_their_own_losses():
    chosen = ["mse", Huber(0.3), Quantile([0.1, 0.5, 0.9])]
    nets = [network("numba", "float32") for _ in chosen]
    nn.fit_many(nets[:2], X, VALUES, epochs=2, loss=chosen[:2], verbose=False)
    for net, loss in zip(nets, chosen[:2], strict=False):
        alone = network("numba", "float32")
        alone.fit(X, VALUES, epochs=2, loss=loss, verbose=False)
        assert same_weights(net, alone)


def test_wrong_losses_say_what_is_meant():
    def my_loss(outputs, targets):
        return outputs - targets

    for given, message in (
        (my_loss, r"received the function .*my_loss.* nn\.losses\.Custom\(value, gradient\)"),
        ("mea", "did you mean .*'mae'"),
        ("quantil", "did you mean .*'quantile'"),
        ("xyz", "valid names are .*poisson, quantile, "),
    ):
        with pytest.raises(InvalidInputError, match=message):
            losses.get_loss(given)
