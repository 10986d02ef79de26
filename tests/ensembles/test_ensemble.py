"""Ensembles predict the mean of their networks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, ModelFileError
from nnbackend.saving.model_file import read_model, write_model
from tests.helpers import Shift, classifier, images, rich_network, same_weights

X, Y = images(rows=120)
VALUES = np.random.default_rng(1).normal(size=(120, 4)).astype(np.float32)
LABELS = (np.random.default_rng(2).random((120, 4)) < 0.4).astype(int)
TARGETS = {"softmax_cross_entropy": Y, "sigmoid_cross_entropy": LABELS, "mean_squared_error": VALUES}


def ensemble(backend="numpy", loss="softmax_cross_entropy", count=3):
    networks = [classifier(backend, seed=seed) for seed in range(count)]
    nn.fit_many(networks, X, TARGETS[loss], epochs=2, loss=loss)
    return nn.Ensemble(networks)


@pytest.mark.parametrize("loss", TARGETS)
def test_the_mean_and_the_spread(backend, loss):
    chosen = ensemble(backend, loss)
    each = np.stack([network.predict(X) for network in chosen.networks])
    np.testing.assert_array_equal(chosen.predict_all(X), each)
    assert chosen.predict(X).dtype == np.float32
    np.testing.assert_allclose(chosen.predict(X), each.astype(np.float64).mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(chosen.predict_std(X), each.astype(np.float64).std(axis=0), rtol=1e-6, atol=1e-9)
    assert chosen.predict_std(X).max() > 0
    # The products of other libraries may round differently in batches of other sizes.
    tolerance = 1e-6 if isinstance(backend, nn.ArrayApiBackend) else 0
    np.testing.assert_allclose(chosen.predict(X, batch_size=7), chosen.predict(X), rtol=tolerance)


def test_classes():
    chosen = ensemble()
    np.testing.assert_array_equal(chosen.predict_classes(X), chosen.predict(X).argmax(axis=1))
    several = ensemble(loss="sigmoid_cross_entropy")
    np.testing.assert_array_equal(several.predict_classes(X), several.predict(X) > 0.5)
    with pytest.raises(InvalidInputError, match=r"trained on numbers .* predicts no classes"):
        ensemble(loss="mean_squared_error").predict_classes(X)


@pytest.mark.parametrize("weights", [None, np.linspace(0.1, 2, 120)])
@pytest.mark.parametrize("loss", TARGETS)
def test_the_loss_is_that_of_the_mean(loss, weights):
    chosen, targets = ensemble(loss=loss), TARGETS[loss]
    p = chosen.predict(X).astype(np.float64)
    if loss == "softmax_cross_entropy":
        rows, correct = -np.log(p[np.arange(120), targets]), p.argmax(axis=1) == targets
    elif loss == "sigmoid_cross_entropy":
        rows = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1)
        correct = (p > 0.5) == targets
    else:
        rows = ((p - targets) ** 2).sum(axis=1) / 2
    metrics = chosen.evaluate(X, targets, sample_weight=weights)
    # The network's own convention for sums over outputs.
    alone = nn.Ensemble(chosen.networks[:1])
    assert alone.evaluate(X, targets)["loss"] == pytest.approx(chosen[0].evaluate(X, targets)["loss"], rel=1e-5)
    factor = alone.evaluate(X, targets)["loss"] / _mean_of_one(alone, loss, targets)
    assert metrics["loss"] == pytest.approx(np.average(rows, weights=weights) * factor, rel=1e-5)
    if loss == "mean_squared_error":
        assert metrics.keys() == {"loss"}
    else:
        name = "accuracy" if loss == "softmax_cross_entropy" else "binary_accuracy"
        assert metrics[name] == pytest.approx(correct.mean())


def test_more_metrics():
    chosen, wanted = ensemble(), TARGETS["softmax_cross_entropy"]
    expected = np.mean(wanted != chosen.predict_classes(X))
    found = chosen.evaluate(X, wanted, metrics=["f1", lambda y_true, y_pred: np.mean(y_true != y_pred)])
    assert [*found.values()][-1] == pytest.approx(expected)
    assert "f1" in found


def _mean_of_one(alone, loss, targets):
    p = alone.predict(X).astype(np.float64)
    if loss == "softmax_cross_entropy":
        return -np.log(p[np.arange(120), targets]).mean()
    if loss == "sigmoid_cross_entropy":
        return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1).mean()
    return ((p - targets) ** 2).sum(axis=1).mean() / 2


def test_certain_predictions_have_a_finite_loss():
    networks = [classifier(seed=seed, input_scale=1.0) for seed in range(2)]
    for network in networks:
        network.set_loss("softmax_cross_entropy")
    chosen = nn.Ensemble(networks)
    x = np.float32(1e6) * np.random.default_rng(0).normal(size=(9, 12)).astype(np.float32)
    assert (chosen.predict_all(x).min(axis=(1, 2)) == 0).all()
    for loss in ("softmax_cross_entropy", "sigmoid_cross_entropy"):
        for network in networks:
            network.set_loss(loss)
        assert np.isfinite(chosen.evaluate(x, np.zeros(9, int))["loss"])


def test_one_output():
    networks = [nn.Network([nn.Dense(1)], 12, backend="numpy", seed=seed) for seed in range(2)]
    nn.fit_many(networks, X, Y % 2, epochs=2, loss="sigmoid_cross_entropy")
    chosen = nn.Ensemble(networks)
    assert chosen.predict(X).shape == (120, 1)
    np.testing.assert_array_equal(chosen.predict_classes(X), chosen.predict(X)[:, 0] > 0.5)
    accuracy = np.mean(chosen.predict_classes(X) == Y % 2)
    assert chosen.evaluate(X, Y % 2)["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("loss", TARGETS)
def test_a_file(tmp_path, loss):
    chosen = ensemble(loss=loss)
    chosen.save(tmp_path / "ensemble.safetensors")
    loaded = nn.Ensemble.load(tmp_path / "ensemble.safetensors", "numpy")
    assert len(loaded) == 3
    assert all(same_weights(*pair) for pair in zip(chosen, loaded, strict=True))
    np.testing.assert_array_equal(loaded.predict(X), chosen.predict(X))
    if loss != "mean_squared_error":
        np.testing.assert_array_equal(loaded.predict_classes(X), chosen.predict_classes(X))
    assert loaded.evaluate(X, TARGETS[loss]) == chosen.evaluate(X, TARGETS[loss])


def test_copies_and_pickles():
    chosen = ensemble()
    for other in (copy.deepcopy(chosen), pickle.loads(pickle.dumps(chosen))):
        assert other[0] is not chosen[0]
        np.testing.assert_array_equal(other.predict(X), chosen.predict(X))


def test_networks_may_differ():
    networks = [rich_network("numpy"), classifier("numba"), classifier(dtype="float64")]
    for network in networks:
        network.fit(X, Y, epochs=1, loss="softmax_cross_entropy")
    chosen = nn.Ensemble(networks)
    assert chosen.dtype == np.float64
    assert chosen.predict(X).dtype == np.float64
    np.testing.assert_allclose(chosen.predict(X).sum(axis=1), 1, rtol=1e-6)


class TestOnnx:
    @pytest.fixture(autouse=True)
    def runtime(self):
        pytest.importorskip("onnx")
        self.runtime = pytest.importorskip("onnxruntime")

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("loss", TARGETS)
    def test_one_graph(self, tmp_path, loss, dtype):
        networks = [rich_network("numpy", dtype), classifier(dtype=dtype), classifier(dtype=dtype, seed=9)]
        for network in networks:
            network.fit(X, TARGETS[loss], epochs=1, loss=loss)
        chosen = nn.Ensemble(networks)
        chosen.to_onnx(tmp_path / "ensemble.onnx", "uint8")
        session = self.runtime.InferenceSession(tmp_path / "ensemble.onnx", providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {"input": np.asarray(X)})
        assert output.dtype == dtype
        np.testing.assert_allclose(output, chosen.predict(X), rtol=1e-4, atol=1e-6)

    def test_one_dtype(self, tmp_path):
        chosen = nn.Ensemble([classifier(), classifier(dtype="float64")])
        with pytest.raises(InvalidInputError, match="must have one dtype, received float32 and float64"):
            chosen.to_onnx(tmp_path / "ensemble.onnx")
        assert not list(tmp_path.iterdir())


class TestBadInput:
    @pytest.mark.parametrize(
        ("networks", "message"),
        [
            ([], "an ensemble needs at least one network"),
            (5, "an ensemble takes a list of networks, received 5"),
            ([classifier(), 5], r"networks\[1\] is not a Network, received 5"),
            (
                [classifier(), classifier(features=9)],
                r"samples .* same shape, .* \(12,\), and networks\[1\] \(9,\)",
            ),
            ([classifier(), classifier(classes=9)], r"outputs .* same shape, .* \(4,\), and networks\[1\] \(9,\)"),
        ],
    )
    def test_networks(self, networks, message):
        with pytest.raises(InvalidInputError, match=message):
            nn.Ensemble(networks)

    def test_different_losses(self):
        one, other = classifier(), classifier()
        one.set_loss("softmax_cross_entropy")
        chosen = nn.Ensemble([one, other])
        message = r"networks\[0\] and networks\[1\] mean .*: one has softmax_cross_entropy, the other no loss"
        for method in (chosen.predict, chosen.predict_all, chosen.predict_std, chosen.predict_classes):
            with pytest.raises(InvalidInputError, match=message):
                method(X)

    def test_before_training(self):
        with pytest.raises(InvalidInputError, match="not trained yet"):
            nn.Ensemble([classifier()]).evaluate(X, Y)

    def test_data(self):
        with pytest.raises(InvalidInputError, match="x must have 12 features"):
            ensemble().predict(X[:, :5])
        with pytest.raises(InvalidInputError, match=r"labels must be in \[0, 4\)"):
            ensemble().evaluate(X, Y + 1)


class TestFiles:
    def test_a_file_of_one_network(self, tmp_path):
        classifier().save(tmp_path / "one")
        with pytest.raises(ModelFileError, match=r"one network, not an ensemble; read it with nnbackend.Network.load"):
            nn.Ensemble.load(tmp_path / "one")
        ensemble().save(tmp_path / "many")
        with pytest.raises(ModelFileError, match=r"an ensemble of several networks; .*nnbackend.Ensemble.load"):
            nn.Network.load(tmp_path / "many")

    def test_nothing_is_written_of_a_network_that_has_diverged(self, tmp_path):
        chosen = ensemble()
        chosen[1].model.parameters[0] = np.nan
        with pytest.raises(ModelFileError, match=r"members\.1\.layers\.0\.\w+ contains NaN"):
            chosen.save(tmp_path / "many")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "change",
        [
            lambda config, weights: config.update(members=[]),
            lambda config, weights: config.update(members="all"),
            lambda config, weights: config.update(members=[None] * 3),
            lambda config, weights: config.update(more=1),
            lambda config, weights: config.update(members=[{}] * 10_001),
            lambda config, weights: config["members"].pop(),
            lambda config, weights: config["members"].append(config["members"][0]),
            lambda config, weights: config["members"][1].update(input_shape=[9]),
            lambda config, weights: weights.pop("members.2.layers.0.bias"),
            lambda config, weights: weights.update(other=np.zeros(3, np.float32)),
            lambda config, weights: weights.update({"members.-1.layers.0.bias": np.zeros(9, np.float32)}),
            lambda config, weights: weights.update({"members.02.layers.0.bias": np.zeros(9, np.float32)}),
            lambda config, weights: weights.update({f"members.{'9' * 5000}.x": np.zeros(9, np.float32)}),
        ],
    )
    def test_damaged_files(self, tmp_path, change):
        ensemble().save(tmp_path / "many")
        config, weights = read_model(tmp_path / "many")
        change(config, weights)
        write_model(tmp_path / "changed", config, weights)
        with pytest.raises(ModelFileError, match="changed"):
            nn.Ensemble.load(tmp_path / "changed")

    def test_own_layers(self, tmp_path):
        chosen = nn.Ensemble([nn.Network([Shift(1), nn.Dense(2)], 3, backend="numpy")])
        chosen.save(tmp_path / "many")
        with pytest.raises(ModelFileError, match="unknown layer 'shift'"):
            nn.Ensemble.load(tmp_path / "many")
        assert len(nn.Ensemble.load(tmp_path / "many", "numpy", custom_layers=[Shift])) == 1
