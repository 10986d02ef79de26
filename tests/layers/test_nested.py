"""Nested layers: names, random streams, state, freezing and configuration."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, ModelFileError
from nnbackend.testing import check_gradients
from tests.helpers import images, same_weights
from tests.layers.custom import Chain, RunningScale, Shortcut

X, Y = images()
OPTIONS = {"loss": "softmax_cross_entropy", "batch_size": 16, "verbose": False}
CUSTOM = [Chain, Shortcut, RunningScale]


def body():
    return [nn.Dense(9, activation="tanh", l2=0.1), nn.Dropout(0.3), nn.Dense(6, activation="relu")]


def network(backend="numpy", nested=True, **options):
    layers = [nn.Dense(12), Chain(body()), nn.Dense(4)] if nested else [nn.Dense(12), *body(), nn.Dense(4)]
    return nn.Network(layers, 12, backend=backend, seed=2, **options)


def deep(backend="numpy"):
    inner = Shortcut([nn.Dense(12, activation="elu"), RunningScale(), nn.Dropout(0.2)])
    layers = [Shortcut([nn.Dense(12), inner]), nn.MaxAbsNorm(), nn.Dense(4)]
    return nn.Network(layers, 12, backend=backend, seed=2)


def test_a_chain_equals_its_layers(backend):
    """The same operations and initial weights; only names and dropout streams differ."""
    nested, flat = network(backend), network(backend, nested=False)
    names = ["layers.1.layers.0.weight", "layers.1.layers.0.bias", "layers.1.layers.2.weight", "layers.1.layers.2.bias"]
    assert list(nested.get_weights())[2:6] == names
    for one, other in zip(nested.get_weights().values(), flat.get_weights().values(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(nested.predict(X), flat.predict(X))
    assert nested.evaluate(X, Y, loss=OPTIONS["loss"]) == flat.evaluate(X, Y, loss=OPTIONS["loss"])
    histories = [net.fit(X, Y, epochs=3, **OPTIONS) for net in (nested, flat)]
    assert histories[0]["loss"] != histories[1]["loss"]


@pytest.mark.float64
def test_gradients_through_nested_layers_are_right(backend):
    net = network(backend, dtype="float64")
    check_gradients(net, X[:6] / 255, Y[:6], loss="softmax_cross_entropy", samples=6)
    first = nn.Network([Chain([nn.Flatten(), *body()]), nn.Dense(4)], (3, 4), backend=backend, dtype="float64")
    check_gradients(first, X[:6] / 255, Y[:6], loss="softmax_cross_entropy", samples=6)


@pytest.mark.float64
def test_gradients_of_shortcuts_are_right(backend):
    layers = [Shortcut([nn.Dense(5), Shortcut([nn.Dense(12, activation="gelu"), nn.Dense(5)]), nn.Dense(12)])]
    net = nn.Network([*layers, nn.Dense(4)], 12, backend=backend, dtype="float64", seed=1)
    check_gradients(net, X[:6] / 255, Y[:6], loss="softmax_cross_entropy", samples=6)


def test_state_freezing_and_resuming_nest(backend, tmp_path):
    def run(epochs, **more):
        net = deep(backend)
        net.layers[0].sublayers[1].sublayers[0].trainable = False
        frozen = net.get_weights()["layers.0.layers.1.layers.0.weight"]
        net.fit(X, Y, epochs=epochs, optimizer=nn.AdamW(0.01, weight_decay=0.1), **OPTIONS, **more)
        np.testing.assert_array_equal(net.get_weights()["layers.0.layers.1.layers.0.weight"], frozen)
        return net

    whole = run(4)
    assert whole.get_weights()["layers.0.layers.1.layers.1.mean"][0] != 1
    for epochs in (2, 4):
        resumed = run(epochs, callbacks=[nn.Checkpoint(tmp_path / "run")], resume=True)
    assert same_weights(resumed, whole)
    whole.save(tmp_path / "net.safetensors")
    again = nn.Network.load(tmp_path / "net.safetensors", backend, custom_layers=CUSTOM)
    assert same_weights(again, whole)
    assert not again.layers[0].sublayers[1].sublayers[0].trainable
    np.testing.assert_array_equal(again.predict(X), whole.predict(X))


# ---- one backend is enough -------------------------------------------------------------------------------------------


def test_freezing_a_container_freezes_what_is_in_it():
    net = network()
    net.layers[1].trainable = False
    kept = net.get_weights()
    assert net.state_count == 12 * 9 + 9 + 9 * 6 + 6
    net.fit(X, Y, epochs=1, optimizer=nn.AdamW(0.01), **OPTIONS)
    for name, value in net.get_weights().items():
        assert np.array_equal(value, kept[name]) == name.startswith("layers.1.")
    with net.in_training(), pytest.raises(InvalidInputError, match="cannot be changed during training"):
        net.layers[1].sublayers[0].trainable = False


def test_streams_do_not_depend_on_other_layers():
    def streams(layers):
        net = nn.Network(layers, 12, backend="numpy")
        return {node.name: node.stream for top in net.model.layout.nodes for node in top.walk()}

    found = streams([Chain([nn.Dropout(0.1), Chain([nn.Dropout(0.1)])]), nn.Dropout(0.1), Chain([nn.Dropout(0.1)])])
    assert found == {
        "layers.0": 0,
        "layers.0.layers.0": 1 << 16,
        "layers.0.layers.1": (1 << 16) + 1,
        "layers.0.layers.1.layers.0": (1 << 16) + 2,
        "layers.1": 1,
        "layers.2": 2,
        "layers.2.layers.0": 3 << 16,
    }


def test_configurations_nest():
    net = deep()
    net.layers[0].sublayers[0].trainable = False
    config = json.loads(json.dumps(net.config()))
    again = nn.Network.from_config(config, "numpy", custom_layers=CUSTOM)
    assert again.config() == net.config()
    assert same_weights(again, net)
    assert same_weights(copy.deepcopy(net), net)
    with pytest.raises(InvalidInputError, match=r"layers\[0\]\.layers\[0\]: unknown layer 'shortcut'"):
        nn.Network.from_config({"layers": [{"kind": "chain", "layers": config["layers"]}], "input_shape": 12},
                               "numpy", custom_layers=[Chain])  # fmt: skip
    config["layers"][0]["layers"][1]["layers"][0]["units"] = 0
    with pytest.raises(InvalidInputError, match=r"^layers\[0\]\.layers\[1\]\.layers\[0\] cannot be made from .*units"):
        nn.Network.from_config(config, "numpy", custom_layers=CUSTOM)


def test_an_argument_called_layers_may_be_something_else():
    class Deep(Chain):
        def __init__(self, layers, width):
            super().__init__([nn.Dense(width) for _ in range(layers)])
            self.layers, self.width = layers, width

        def config(self):
            return {"layers": self.layers, "width": self.width}

    net = nn.Network([Deep(3, 5)], 4, backend="numpy")
    assert same_weights(nn.Network.from_config(net.config(), "numpy", custom_layers=[Deep]), net)


def test_layers_that_do_not_fit_or_occur_twice_are_named():
    twice = nn.Dense(3)
    with pytest.raises(InvalidInputError, match=r"layers\[1\]\.layers\[1\] is in the list twice"):
        nn.Network([twice, Chain([nn.Dense(3), twice])], 3, backend="numpy")
    with pytest.raises(InvalidInputError, match=r"layers\[0\]: layers\[0\]: Dense takes flat samples"):
        nn.Network([Chain([nn.Dense(2)])], (2, 2), backend="numpy")
    with pytest.raises(InvalidInputError, match="at least one layer"):
        Chain([])


def test_two_classes_of_one_name_are_refused_before_a_file_cannot_be_read():
    other = type("Chain", (Chain,), {})
    with pytest.raises(InvalidInputError, match=r"layers\[1\]\.layers\[0\]: two classes are called Chain"):
        nn.Network([Chain([nn.Dense(3)]), Chain([other([nn.Dense(3)])])], 3, backend="numpy")


def nested_config(depth):
    layers = [{"kind": "flatten"}]
    for _ in range(depth):
        layers = [{"kind": "chain", "layers": layers}]
    return {"layers": layers, "input_shape": 3}


def test_there_is_a_limit_to_the_depth(tmp_path):
    nn.Network.from_config(nested_config(20), "numpy", custom_layers=[Chain])
    for depth in (40, 300):
        with pytest.raises(InvalidInputError, match="more than 32 levels deep"):
            nn.Network.from_config(nested_config(depth), "numpy", custom_layers=[Chain])
    net = network()
    net.save(tmp_path / "net.safetensors")
    with pytest.raises(ModelFileError, match="unknown layer 'chain'"):
        nn.Network.load(tmp_path / "net.safetensors", "numpy")


def test_the_summary_indents_what_is_within():
    lines = network().summary().splitlines()
    found = [line.split("  ")[0] or line.strip().split("  ")[0] for line in lines[3:8]]
    assert found[1] == "1: Chain"
    assert lines[5].startswith("  0: Dense(9")
    assert lines[6].startswith("  1: Dropout(rate=0.3)")
    assert "Chain(layers=[Dense(9, activation='tanh', l2=0.1), Dropout(rate=0.3)" in repr(network())


def test_the_summary_says_that_a_container_is_frozen():
    net = network()
    assert "trainable" not in net.summary()
    net.layers[1].trainable = False
    assert net.summary().splitlines()[4].startswith("1: Chain(trainable=False)")


class Twice(nn.Layer):
    """Passes through its layer twice."""

    def __init__(self, layers):
        super().__init__()
        self.sublayers = tuple(layers)

    def forward(self, step, x):
        x, first = step.forward(self.sublayers, x)
        x, second = step.forward(self.sublayers, x)
        return x, (first, second)

    def backward(self, step, saved, upstream, need_input_gradient):
        upstream = step.backward(self.sublayers, saved[1], upstream)
        return step.backward(self.sublayers, saved[0], upstream, need_input_gradient)


def test_a_layer_that_is_passed_through_twice_is_refused(backend):
    """The gradients of the second time would overwrite those of the first."""
    net = nn.Network([Twice([nn.Dense(12)]), nn.Dense(4)], 12, backend=backend)
    before = net.get_weights()
    with pytest.raises(InvalidInputError, match=r"layers.0.layers.0, Dense\(12.*recorded twice"):
        net.fit(X, Y, epochs=1, **OPTIONS)
    assert all((before[name] == value).all() for name, value in net.get_weights().items())
    assert net.loss is None
    # Without gradients to overwrite, it may be.
    assert net.predict(X).shape == (70, 4)
    net.layers[0].sublayers[0].trainable = False
    net.fit(X, Y, epochs=1, **OPTIONS)
    other = nn.Network([Twice([nn.Activation("tanh")]), nn.Dense(4)], 12, backend=backend, dtype="float64")
    check_gradients(other, X[:6] / 255, Y[:6], loss="softmax_cross_entropy", samples=6)
