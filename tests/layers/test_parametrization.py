"""`Dense(parametrization="ntk")`: weight and bias learn as those of the neural tangent parametrisation."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownNameError
from tests.helpers import any_device, images, same_weights

X, Y = images()
OPTIONS = {"loss": "softmax_cross_entropy", "batch_size": 16, "verbose": False}


class Tangent(nn.Layer):
    """``x @ w / sqrt(inputs) + 0.1 b``, as Jacot et al. (2018) write it."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def output_shape(self, input_shape):
        return (self.units,)

    def parameters(self, input_shape):
        return (
            nn.Parameter("weight", (*input_shape, self.units), nn.Normal()),
            nn.Parameter("bias", (self.units,), nn.Zeros()),
        )

    def forward(self, step, x):
        out = step.buffer(self.units)
        step.call(_forward, x, step.parameter("weight"), step.parameter("bias"), out)
        return out, x

    def backward(self, step, saved, upstream, need_input_gradient):
        downstream = step.like(saved)
        gradients = step.gradient("weight"), step.gradient("bias")
        step.call(_backward, saved, step.parameter("weight"), upstream, *gradients, downstream)
        return downstream

    def config(self):
        return {"units": self.units}


@any_device
def _forward(backend, x, weight, bias, out):
    out[...] = x @ weight / math.sqrt(len(weight)) + 0.1 * bias


@any_device
def _backward(backend, x, weight, upstream, weight_gradient, bias_gradient, downstream):
    weight_gradient[...] = x.T @ upstream / math.sqrt(len(weight))
    bias_gradient[...] = 0.1 * upstream.sum(axis=0)
    downstream[...] = upstream @ weight.T / math.sqrt(len(weight))


@pytest.mark.parametrize("optimizer", [nn.Adam, nn.RMSprop])
def test_it_learns_as_the_tangent_parametrisation(optimizer):
    """An epsilon of nearly 0, because it is added to gradients of different scales."""
    ours = nn.Network([nn.Dense(9, "tanh", parametrization="ntk"), nn.Dense(4, parametrization="ntk")], 12, "numpy",
                      seed=1, dtype="float64")  # fmt: skip
    theirs = nn.Network([Tangent(9), nn.Activation("tanh"), Tangent(4)], 12, "numpy", seed=1, dtype="float64")
    factors = {"0": (0, math.sqrt(12)), "1": (2, 3)}
    weights = ours.get_weights()
    start = {}
    for mine, (place, scale) in factors.items():
        start[f"layers.{place}.weight"] = weights[f"layers.{mine}.weight"] * scale
        start[f"layers.{place}.bias"] = weights[f"layers.{mine}.bias"] * 10
    theirs.set_weights(start)
    for net in (ours, theirs):
        net.fit(X, Y, epochs=2, optimizer=optimizer(0.05, epsilon=1e-30), **OPTIONS)
    found = theirs.get_weights()
    for mine, (place, scale) in factors.items():
        expected = found[f"layers.{place}.weight"] / scale
        np.testing.assert_allclose(ours.get_weights()[f"layers.{mine}.weight"], expected, rtol=1e-7, atol=1e-9)
        expected = found[f"layers.{place}.bias"] / 10
        np.testing.assert_allclose(ours.get_weights()[f"layers.{mine}.bias"], expected, rtol=1e-7, atol=1e-9)


def test_every_backend_trains_alike(backend):
    def network(where, dtype="float32"):
        layers = [nn.Scale(learning_rate_factor=6.0), nn.Dense(9, "selu", parametrization="ntk"),
                  nn.Dense(7, "mish", parametrization="ntk", use_bias=False), nn.Dense(4)]  # fmt: skip
        return nn.Network(layers, 12, where, seed=3, dtype=dtype)

    net, reference = network(backend), network("numpy", "float64")
    for each in (net, reference):
        each.fit(X, Y, epochs=2, optimizer=nn.Adam(nn.LogCosine(0.02, 2), beta2=0.95), **OPTIONS)
    for name, array in reference.get_weights().items():
        np.testing.assert_allclose(net.get_weights()[name], array, rtol=5e-3, atol=1e-4)


def test_initial_weights_and_factors():
    net = nn.Network([nn.Dense(300, "relu", parametrization="ntk", learning_rate_factor=2.0)], 400, "numpy")
    assert net.get_weights()["layers.0.weight"].std() == pytest.approx(1 / 20, rel=0.02)
    assert [factor for factor, _, _ in net.model.layout.rate_parts] == [2 / 20, 0.2]
    given = nn.Dense(3, parametrization="ntk", weight_initializer="zeros")
    assert (nn.Network([given], 4, "numpy").get_weights()["layers.0.weight"] == 0).all()


def test_it_is_in_files_and_texts(tmp_path):
    net = nn.Network([nn.Dense(9, parametrization="ntk"), nn.Scale(), nn.Dense(4)], 12, "numpy", seed=1)
    net.save(tmp_path / "model")
    found = nn.Network.load(tmp_path / "model", "numpy")
    assert [layer.config().get("parametrization") for layer in found.layers[::2]] == ["ntk", None]
    assert same_weights(found, net)
    assert repr(found.layers[0]) == "Dense(9, activation='identity', parametrization='ntk')"
    for each in (found, net):
        each.fit(X, Y, epochs=1, optimizer="adam", **OPTIONS)
    assert same_weights(found, net)


def test_errors():
    with pytest.raises(UnknownNameError, match="parametrization 'mup'"):
        nn.Dense(3, parametrization="mup")
    with pytest.raises(InvalidInputError, match="learning_rate_factor of parameter 'w' must be above 0"):
        nn.Parameter("w", (3,), nn.Zeros(), learning_rate_factor=0.0)


def test_inputs_are_no_argument_of_a_layer():
    """The order of PyTorch's `Linear(inputs, outputs)`."""
    with pytest.raises(InvalidInputError, match=r"activation must be a name such as 'relu', received 4; a layer takes"):
        nn.Dense(3, 4)
