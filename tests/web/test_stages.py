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


def convolutional(backend="numpy") -> nn.Network:
    layers = [
        nn.Reshape((9, 8, 2)),
        nn.Conv2D(5, 3, use_bias=False),
        nn.BatchNormalization(),
        nn.Activation("relu"),
        nn.MaxPool2D(2),
        nn.Residual([nn.Conv2D(5, 3, padding="same", activation="tanh")]),
        nn.Flatten(),
        nn.Dense(6, activation="relu"),
        nn.Dropout(0.5),
        nn.Dense(4),
    ]
    network = nn.Network(layers, 144, backend, seed=2)
    network.set_loss("softmax_cross_entropy")
    return network


def test_feature_maps_come_before_the_pool(backend):
    network = convolutional(backend)
    stages = Stages(network)
    assert stages.names == ["5 maps of 7 x 6, relu", "5 maps of 3 x 3", "6 units, relu"]
    assert stages.shapes == [(7, 6, 5), (3, 3, 5), (6,)]
    np.testing.assert_array_equal(stages.kernels[0], network.get_weights()["layers.1.weight"])
    assert stages.kernels[1:] == [None, None]
    x = np.random.default_rng(0).normal(size=(3, 144))
    hidden, outputs = stages(x)
    np.testing.assert_allclose(outputs, network.predict(x), rtol=1e-4)
    first = nn.Network(convolutional().layers[:4], 144, "numpy")
    weights = network.get_weights()
    first.set_weights({name: weights[name] for name in first.get_weights()})
    np.testing.assert_allclose(hidden[0], first.predict(x), rtol=1e-4, atol=1e-5)
    pooled = hidden[0][:, :6].reshape(3, 3, 2, 3, 2, 5).max(axis=(2, 4))
    assert (np.abs(hidden[1] - pooled) <= 1 + 1e-5).all()  # the residual block adds a tanh


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ([nn.Conv2D(3, 2), nn.GlobalAveragePool2D()], ["3 maps of 4 x 4"]),
        ([nn.Conv2D(1, 2, activation="elu"), nn.Flatten(), nn.Dense(2)], ["1 map of 4 x 4, elu"]),
        ([nn.Flatten(), nn.Dense(2)], []),
        ([nn.Conv2D(4, 5), nn.Flatten()], ["4 maps of 1 x 1"]),
        ([nn.Reshape((25, 2)), nn.Conv1D(3, 2), nn.Flatten(), nn.Dense(4), nn.Dense(2)], ["4 units"]),
        (
            [nn.Flatten(), nn.Dense(18), nn.Reshape((3, 3, 2)), nn.Conv2D(2, 2), nn.Flatten(), nn.Dense(2)],
            ["18 units", "2 maps of 2 x 2"],
        ),
    ],
    ids=repr,
)
def test_every_hidden_layer_is_found(layers, names):
    layers = nn.layers.layers_from_config(nn.layers.layers_config(layers))
    network = nn.Network(layers, (5, 5, 2), "numpy")
    stages = Stages(network)
    assert stages.names == names
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2))
    np.testing.assert_allclose(stages(x)[1], network.predict(x), rtol=1e-5, atol=1e-6)


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
