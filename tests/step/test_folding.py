"""Batch normalisation folded into the linear layer before it: the same predictions, from weights that may change."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.arrays import span_of
from nnbackend.step import recorder as recorder_module
from tests.conftest import PaddedNumpyBackend
from tests.helpers import same_weights

IMAGE, CLASSES = (7, 6, 4), 3


def flat(*layers):
    return [*layers, nn.Flatten(), nn.Dense(CLASSES)]


NETWORKS = {
    "convolution": lambda: flat(nn.Conv2D(5, 3, padding="same"), nn.BatchNormalization(), nn.Activation("relu")),
    "without bias": lambda: flat(nn.Conv2D(5, 2, strides=2, use_bias=False), nn.BatchNormalization(center=False)),
    "groups": lambda: flat(nn.Conv2D(6, 2, groups=2), nn.BatchNormalization(scale=False)),
    "sequence": lambda: flat(nn.Reshape((42, 4)), nn.Conv1D(5, 3), nn.BatchNormalization()),
    "dense": lambda: [nn.Flatten(), nn.Dense(9), nn.BatchNormalization(), nn.Dense(CLASSES), nn.BatchNormalization()],
    "residual": lambda: flat(nn.Residual([nn.Conv2D(4, 3, padding="same"), nn.BatchNormalization(epsilon=0.1)])),
}


def data(rows=250):
    generator = np.random.default_rng(2)
    return generator.normal(size=(rows, *IMAGE)), generator.integers(0, CLASSES, rows)


def some_weights(network, seed=0):
    """Weights, and statistics that have little in common with those of the data."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.uniform(0.5, 3, array.shape) if "variance" in name else generator.normal(size=array.shape)
        for name, array in network.get_weights().items()
    }


def make(layers, backend="numpy", **options):
    network = nn.Network(layers, IMAGE, backend=backend, **options)
    network.set_weights(some_weights(network))
    return network


class Watching(PaddedNumpyBackend):
    """Notes the calls of every step."""

    name = "watching"

    def __init__(self):
        super().__init__()
        self.recorded = []

    def executor(self, calls):
        self.recorded = list(calls)
        return super().executor(calls)

    def normalized(self):
        """What the calls of `normalize` write: "output", or "weight" and "bias"."""
        linear = [call for call in self.recorded if call.operation in ("convolution", "dense_forward")]
        weights = {call.weight.__array_interface__["data"][0] for call in linear}
        biases = {call.bias.__array_interface__["data"][0] for call in linear if call.bias is not None}
        found = []
        for call in self.recorded:
            if call.operation == "normalize":
                begin = call.out.__array_interface__["data"][0]
                found.append("weight" if begin in weights else "bias" if begin in biases else "output")
        return found


@pytest.mark.float64
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_are_those_of_the_layers_one_by_one(backend, name, dtype, tolerance, monkeypatch):
    x, y = data()
    network = make(NETWORKS[name](), backend, dtype=dtype)
    before = network.get_weights()
    folded, metrics = network.predict(x), network.evaluate(x, y, loss="mean_squared_error")
    assert all(np.array_equal(array, before[name]) for name, array in network.get_weights().items())
    monkeypatch.setattr(recorder_module, "fold_normalizations", lambda recorder, output: None)
    network.set_loss("mean_squared_error")  # records predictions again
    plain = network.predict(x)
    np.testing.assert_allclose(folded, plain, rtol=tolerance, atol=tolerance * np.abs(plain).max())
    expected = network.evaluate(x, y, loss="mean_squared_error")
    assert metrics == pytest.approx(expected, rel=tolerance)
    # Something was folded, except where the library's arrays do not say where they are.
    assert span_of(network.model.parameters) is None or not np.array_equal(folded, plain)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_statistics_are_in_the_weights(name):
    watching = Watching()
    network = make(NETWORKS[name](), watching)
    x, y = data()
    layers = sum(parameter.endswith("running_mean") for parameter in network.get_weights())
    network.predict(x)
    assert watching.normalized() == ["weight", "bias"] * layers
    network.evaluate(x, y, loss="softmax_cross_entropy")
    assert watching.normalized() == ["weight", "bias"] * layers
    network.train_on_batch(x, y, loss="softmax_cross_entropy")
    assert watching.normalized() == []


@pytest.mark.parametrize(
    ("layers", "rows"),
    [
        (lambda: flat(nn.Conv2D(5, 3, activation="relu"), nn.BatchNormalization()), 250),
        (lambda: flat(nn.Conv2D(5, 3), nn.MaxPool2D(2), nn.BatchNormalization()), 250),
        (lambda: [nn.Flatten(), nn.Dense(9, activation="tanh"), nn.BatchNormalization()], 250),
        # The weights have more elements than the output.
        (lambda: [nn.Flatten(), nn.Dense(9), nn.BatchNormalization()], 168),
        # The convolution's output is added, too.
        (lambda: flat(nn.Conv2D(5, 3), nn.Residual([nn.BatchNormalization(), nn.Activation("tanh")])), 250),
        # The channels are not those of the linear layer.
        (lambda: [nn.Conv2D(5, 3), nn.Flatten(), nn.BatchNormalization()], 250),
        (lambda: [nn.Flatten(), nn.Dense(12), nn.Reshape((2, 3, 2)), nn.BatchNormalization()], 250),
    ],
)
def test_others_are_normalised_as_they_are(layers, rows):
    watching = Watching()
    network = make(layers(), watching)
    network.predict(data(rows)[0])
    assert watching.normalized() == ["output"]


def test_predictions_follow_the_weights(backend, tmp_path):
    x, y = data(40)
    network = make(NETWORKS["convolution"](), backend)
    before = network.predict(x)
    kept = network.snapshot()

    def predictions():
        """Of the network, and of a new one with its weights."""
        other = nn.Network(NETWORKS["convolution"](), IMAGE, backend=backend)
        other.set_weights(network.get_weights())
        if network.loss is not None:
            other.set_loss(network.loss)
        return network.predict(x), other.predict(x)

    def change(how):
        return {
            "set": lambda: network.set_weights(some_weights(network, 1)),
            "fit": lambda: network.fit(x, y, epochs=1, loss="mean_squared_error", optimizer="sgd", verbose=False),
            "batch": lambda: network.train_on_batch(x, y),
            "restore": lambda: network.restore(kept),
        }[how]()

    for how in ("set", "fit", "batch", "restore"):
        change(how)
        now, expected = predictions()
        np.testing.assert_array_equal(now, expected)
        assert np.array_equal(now, before) == (how == "restore")
        network.save(tmp_path / "network.npz")
        loaded = nn.Network.load(tmp_path / "network.npz", backend=backend)
        assert same_weights(loaded, network)
        np.testing.assert_array_equal(loaded.predict(x), now)
    np.testing.assert_allclose(network.to("numpy").predict(x), before, rtol=1e-4, atol=1e-4)


def test_a_layer_may_read_the_output_of_a_convolution_later():
    class Both(nn.Layer):
        """A convolution, plus its normalised output."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2D(4, 1), nn.BatchNormalization()

        @property
        def sublayers(self):
            return self.inner

        def sublayer_shapes(self, input_shape):
            return [input_shape] * 2

        def forward(self, step, x):
            plain, _ = step.forward(self.inner[0], x)
            normalized, _ = step.forward(self.inner[1], plain)
            out = step.like(x)
            step.record("add", *map(step.channels, (plain, normalized, out)))
            return out, None

        def backward(self, step, saved, upstream, need_input_gradient):
            raise NotImplementedError

    watching, (x, _) = Watching(), data(20)
    network = make([Both()], watching, dtype="float64")
    weights = network.get_weights()
    plain = x @ weights["layers.0.layers.0.weight"][0, 0] + weights["layers.0.layers.0.bias"]
    mean, variance, scale, shift = (
        weights[f"layers.0.layers.1.{name}"] for name in ("running_mean", "running_variance", "scale", "shift")
    )
    normalized = (plain - mean) / np.sqrt(variance + 1e-3) * scale + shift
    np.testing.assert_allclose(network.predict(x), plain + normalized, rtol=1e-10, atol=1e-10)
    assert watching.normalized() == ["output"]
