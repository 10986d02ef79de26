"""Hidden activations: the parts of a network compute what the whole computes, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.web.stages import Stages
from tests.helpers import images, rich_network


def test_the_parts_together_are_the_whole(backend):
    network = rich_network(backend)
    network.set_loss("softmax_cross_entropy")
    x, _ = images(5)
    hidden, outputs = Stages(network)(x)
    np.testing.assert_allclose(outputs, network.predict(x), rtol=1e-6)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)
    weights = network.get_weights()
    first = nn.Network([nn.Dense(11, activation="gelu"), nn.MaxAbsNorm()], 12, "numpy", dtype="float64")
    first.set_weights({name: weights[name] for name in ("layers.0.weight", "layers.0.bias")})
    np.testing.assert_allclose(hidden[0], first.predict(x), rtol=1e-4, atol=1e-5)
    z = hidden[0] @ weights["layers.3.weight"] + weights["layers.3.bias"]
    np.testing.assert_allclose(hidden[1], np.where(z > 0, z, 0.01 * z), rtol=1e-4, atol=1e-5)


def test_names_are_those_of_the_hidden_layers():
    assert Stages(rich_network("numpy")).names == ["11 units, gelu", "7 units, leaky_relu"]
    assert Stages(nn.Network([nn.Flatten(), nn.Dense(3)], (2, 2), "numpy")).names == []


@pytest.mark.parametrize("scale", [None, 0.5])
def test_only_the_inputs_are_scaled(scale):
    layers = [nn.Flatten(), nn.Dense(5), nn.Activation("tanh"), nn.Dense(3)]
    network = nn.Network(layers, (3, 4), "numpy", input_scale=scale)
    x = images(6)[0].reshape(-1, 3, 4)
    hidden, outputs = Stages(network)(x)
    assert [layer.shape for layer in hidden] == [(6, 5)]
    np.testing.assert_array_equal(outputs, network.predict(x))


def test_further_training_has_no_effect():
    network = rich_network("numpy")
    stages = Stages(network)
    x, y = images(40)
    before = stages(x)[1]
    network.fit(x, y, epochs=1, loss="softmax_cross_entropy", verbose=False)
    np.testing.assert_array_equal(stages(x)[1], before)
