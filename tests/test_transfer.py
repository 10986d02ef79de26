"""Layers of a trained network in another one: with their weights, or a clear error."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownNameError
from tests.helpers import images

X, Y = images(rows=48)
OPTIONS = {"loss": "softmax_cross_entropy", "epochs": 1, "verbose": False}


def layers():
    return [nn.Residual([nn.Dense(12, activation="tanh")]), nn.BatchNormalization(), nn.Dense(6), nn.Dense(4)]


def trained(backend="numpy", **options):
    net = nn.Network(layers(), 12, backend=backend, seed=3, **options)
    net.fit(X, Y, **OPTIONS)
    return net


def test_shared_layers_keep_their_weights(backend):
    old = trained(backend)
    before = old.get_weights()
    new = nn.Network([*old.layers[:-1], nn.Dense(2)], 12, backend=backend, seed=9, weights_from=old)
    fresh = nn.Network([*layers()[:-1], nn.Dense(2)], 12, backend=backend, seed=9).get_weights()
    for name, array in new.get_weights().items():
        np.testing.assert_array_equal(array, fresh[name] if name.startswith("layers.3") else before[name])
    assert new.input_scale == old.input_scale
    assert new.steps_trained == 0
    new.layers[0].trainable = False
    new.fit(X, Y % 2, **OPTIONS)
    for name, array in new.get_weights().items():
        assert np.array_equal(array, before.get(name)) == name.startswith("layers.0")
    # The weights are copies.
    assert all(np.array_equal(before[name], array) for name, array in old.get_weights().items())


def test_layers_may_move_and_come_from_another_backend_and_dtype(backend):
    old = trained("numpy", dtype="float64")
    new = nn.Network([nn.Dropout(0.5), old.layers[0], nn.Dense(3)], 12, backend=backend, weights_from=old)
    wanted = old.get_weights()["layers.0.layers.0.weight"]
    np.testing.assert_array_equal(new.get_weights()["layers.1.layers.0.weight"], wanted.astype(np.float32))


def test_a_part_of_a_trained_network_needs_to_say_which_weights_it_has(tmp_path):
    old = trained()
    old.save(tmp_path / "model")
    message = r"layers\.0\.layers\.0 belongs to a network that has been trained .* weights_from=that_network"
    for source in (
        old,
        nn.Network.load(tmp_path / "model", "numpy"),
        copy.deepcopy(old),
        pickle.loads(pickle.dumps(old)),
    ):
        for chosen in ([*source.layers[:-1], nn.Dense(2)], source.layers[:-1], [source.layers[0]]):
            with pytest.raises(InvalidInputError, match=message):
                nn.Network(chosen, 12, backend="numpy")
        assert nn.Network(source.layers[:-1], 12, backend="numpy", weights_from=source).predict(X).shape == (48, 6)


def test_all_layers_make_a_new_network_with_initial_weights():
    old = trained()
    one, other = nn.Network(old.layers, 12, backend="numpy", seed=5), nn.Network(layers(), 12, backend="numpy", seed=5)
    for name, array in one.get_weights().items():
        np.testing.assert_array_equal(array, other.get_weights()[name])


def test_restored_weights_are_not_initial_ones():
    snapshot = trained().snapshot()
    net = nn.Network(layers(), 12, backend="numpy")
    net.restore(snapshot)
    with pytest.raises(InvalidInputError, match=r"layers\.0\.layers\.0 belongs to a network that has been trained"):
        nn.Network(net.layers[:-1], 12, backend="numpy")


def test_layers_of_an_untrained_network_are_free():
    old = nn.Network(layers(), 12, backend="numpy")
    nn.Network([*old.layers[:-1], nn.Dense(2)], 12, backend="numpy")
    old.set_weights(old.get_weights())
    with pytest.raises(InvalidInputError, match="or given weights"):
        nn.Network([*old.layers[:-1], nn.Dense(2)], 12, backend="numpy")


def test_other_sources_are_refused():
    old = trained()
    for source, message in (
        ("old", "must be a Network, received 'old'"),
        (trained(), "has no layer with weights from weights_from"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            nn.Network([*old.layers[:-1], nn.Dense(2)], 12, backend="numpy", weights_from=source)
    with pytest.raises(InvalidInputError, match=r"layers\.1\.weight has shape \(5, 4\) .* \(6, 4\) in weights_from"):
        nn.Network([nn.Dense(5), old.layers[-1]], 12, backend="numpy", weights_from=old)


def test_some_weights_may_be_set(backend):
    net = nn.Network(layers(), 12, backend=backend, seed=3)
    before, bias = net.get_weights(), np.arange(4.0)
    net.set_weights({"layers.3.bias": bias}, partial=True)
    for name, array in net.get_weights().items():
        np.testing.assert_array_equal(array, bias if name == "layers.3.bias" else before[name])
    after = net.get_weights()
    with pytest.raises(InvalidInputError, match=r"weights are missing: .* give partial=True"):
        net.set_weights({"layers.3.bias": bias})
    for wrong, error in (({"layers.3.bias": bias[:2]}, InvalidInputError), ({"layers.7.bias": bias}, UnknownNameError)):
        with pytest.raises(error):
            net.set_weights({"layers.2.bias": np.ones(6), **wrong}, partial=True)
    assert all(np.array_equal(after[name], array) for name, array in net.get_weights().items())


def test_all_layers_make_a_new_network_whatever_was_made_of_some():
    old = nn.Network([nn.Dense(3), nn.Dense(2)], 12, backend="numpy", seed=0)
    old.set_weights(old.get_weights())
    new = nn.Network([old.layers[0], nn.Dense(4)], 12, backend="numpy", weights_from=old)
    for layers in (old.layers, new.layers):
        assert nn.Network(layers, 12, backend="numpy").parameter_count > 0
    with pytest.raises(InvalidInputError, match="weights_from"):
        nn.Network([old.layers[0], nn.Dense(5)], 12, backend="numpy")
