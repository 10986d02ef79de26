"""`learning_rate_factor` of layers: each part of the parameters is updated with its own rate."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from tests.helpers import images, same_weights

X, Y = images()
OPTIONS = {"loss": "softmax_cross_entropy", "batch_size": 16, "verbose": False}
OPTIMIZERS = {
    "sgd": lambda rate: nn.SGD(rate),
    "momentum": lambda rate: nn.SGD(rate, momentum=0.9),
    "adam": lambda rate: nn.Adam(rate),
    "adamw": lambda rate: nn.AdamW(rate, weight_decay=0.1),
    "rmsprop": lambda rate: nn.RMSprop(rate),
}


def network(backend="numpy", factors=(0.5, 1.0, 2.0), dtype="float32"):
    layers = [nn.Dense(9, activation="relu", l2=0.1), nn.Dense(7, activation="tanh"), nn.Dense(4)]
    for layer, factor in zip(layers, factors, strict=True):
        layer.learning_rate_factor = factor
    return nn.Network(layers, 12, backend=backend, seed=3, dtype=dtype)


def of_layer(weights, layer):
    return {name: array for name, array in weights.items() if name.startswith(f"layers.{layer}.")}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_of_each_layer_is_one_with_its_rate(backend, optimizer):
    net = network(backend)
    net.train_on_batch(X, Y, loss=OPTIONS["loss"], optimizer=OPTIMIZERS[optimizer](0.01))
    for layer, factor in enumerate((0.5, 1.0, 2.0)):
        alone = network(backend, (1.0, 1.0, 1.0))
        alone.train_on_batch(X, Y, loss=OPTIONS["loss"], optimizer=OPTIMIZERS[optimizer](0.01 * factor))
        for name, array in of_layer(alone.get_weights(), layer).items():
            np.testing.assert_allclose(net.get_weights()[name], array, rtol=1e-6, atol=1e-7)


def test_all_backends_train_alike(backend):
    net, reference = network(backend), network("numpy", dtype="float64")
    for each in (net, reference):
        each.fit(X, Y, epochs=2, optimizer=nn.Adam(nn.Warmup(1, 0.01)), **OPTIONS)
    for name, array in reference.get_weights().items():
        np.testing.assert_allclose(net.get_weights()[name], array, rtol=1e-3, atol=1e-5)


def test_equal_factors_are_another_rate(backend):
    one, other = network(backend, (0.5, 0.5, 0.5)), network(backend, (1.0, 1.0, 1.0))
    one.fit(X, Y, epochs=2, optimizer=nn.SGD(0.1, momentum=0.9), **OPTIONS)
    other.fit(X, Y, epochs=2, optimizer=nn.SGD(0.05, momentum=0.9), **OPTIONS)
    assert same_weights(one, other)


def test_the_factor_of_a_containing_layer_multiplies_those_of_its_layers():
    inner = [nn.Dense(12, learning_rate_factor=0.5), nn.Dense(12)]
    net = nn.Network([nn.Residual(inner, learning_rate_factor=0.5), nn.Dense(4)], 12, seed=1)
    assert [factor for factor, _, _ in net.model.layout.rate_parts] == [0.25, 0.5, 1.0]


def test_factors_are_in_files_copies_and_checkpoints(backend, tmp_path):
    whole, net = network(backend), network(backend)
    whole.fit(X, Y, epochs=3, optimizer=nn.Adam(0.01), **OPTIONS)
    net.fit(X, Y, epochs=2, optimizer=nn.Adam(0.01), callbacks=[nn.Checkpoint(tmp_path)], **OPTIONS)
    again = network(backend)
    again.fit(X, Y, epochs=3, optimizer=nn.Adam(0.01), callbacks=[nn.Checkpoint(tmp_path)], resume=True, **OPTIONS)
    assert same_weights(again, whole)
    other = network(backend, (1.0, 1.0, 1.0))
    with pytest.raises(InvalidInputError, match="learning_rate_factor"):
        other.fit(X, Y, epochs=3, optimizer=nn.Adam(0.01), callbacks=[nn.Checkpoint(tmp_path)], resume=True, **OPTIONS)
    net.save(tmp_path / "model.npz")
    for same in (nn.Network.load(tmp_path / "model.npz"), copy.deepcopy(net)):
        assert [layer.learning_rate_factor for layer in same.layers] == [0.5, 1.0, 2.0]


def test_networks_trained_together_have_their_own_factors(backend):
    together = [network(backend, factors) for factors in ((1.0, 1.0, 1.0), (0.1, 1.0, 1.0), (2.0, 1.0, 1.0))]
    alone = copy.deepcopy(together)
    nn.fit_many(together, X, Y, epochs=2, optimizer=nn.Adam(0.01), **OPTIONS)
    for net in alone:
        net.fit(X, Y, epochs=2, optimizer=nn.Adam(0.01), **OPTIONS)
    for one, other in zip(together, alone, strict=True):
        assert same_weights(one, other)


def test_a_factor_may_be_changed_between_trainings_only(backend):
    net, other, optimizers = network(backend), network(backend), [nn.Adam(0.01), nn.Adam(0.01)]
    net.layers[0].learning_rate_factor = 1.0
    other.fit(X, Y, epochs=1, optimizer=optimizers[0], **OPTIONS)
    other.layers[0].learning_rate_factor = 1.0
    other.fit(X, Y, epochs=1, optimizer=optimizers[0], **OPTIONS)
    assert not same_weights(net, other)

    class Changes(nn.Callback):
        def on_epoch_end(self, network, epoch, metrics):
            network.layers[0].learning_rate_factor = 3.0

    with pytest.raises(InvalidInputError, match=r"learning_rate_factor of .* cannot be changed during training"):
        net.fit(X, Y, epochs=1, callbacks=[Changes()], **OPTIONS)


def test_summary_and_repr_show_it():
    net = network()
    assert "learning_rate_factor=0.5" in net.summary()
    assert "learning-rate factors, so the update is not fused" in net.summary()
    assert "factors" not in network(factors=(0.5, 0.5, 0.5)).summary().splitlines()[-1]
    for layer in (
        nn.Dense(2, learning_rate_factor=0.1),
        nn.Conv2D(2, 3, learning_rate_factor=0.1),
        nn.Conv1D(2, 3, learning_rate_factor=0.1),
        nn.BatchNormalization(learning_rate_factor=0.1),
        nn.LayerNormalization(learning_rate_factor=0.1),
        nn.Residual([nn.Dense(2)], learning_rate_factor=0.1),
    ):
        assert repr(layer).endswith("learning_rate_factor=0.1)")
        assert layer.learning_rate_factor == 0.1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "must be above 0, received 0; to freeze a layer, give trainable=False"),
        (-1.0, "learning_rate_factor must be"),
        ("fast", "learning_rate_factor must be a finite number"),
        (float("nan"), "learning_rate_factor must be a finite number"),
    ],
)
def test_what_is_no_factor_is_refused(value, message):
    with pytest.raises(InvalidInputError, match=message):
        nn.Dense(2, learning_rate_factor=value)


def test_gradients_of_networks_with_factors_can_be_checked():
    net = nn.Network([nn.Dense(3, "tanh", learning_rate_factor=0.5), nn.Dense(2)], 4, backend="numpy", dtype="float64")
    draw = np.random.default_rng(0)
    nn.testing.check_gradients(net, draw.normal(size=(6, 4)), draw.normal(size=(6, 2)), loss="mse")
