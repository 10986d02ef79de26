"""A network's configuration: JSON that creates the network again; other input is rejected."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.saving.model_file import read_model
from tests.helpers import Shift, images, same_weights


def network(**options) -> nn.Network:
    """A network with every kind of layer and value."""
    layers = [
        nn.Flatten(),
        nn.Dense(6, activation="elu", alpha=0.7, l2=0.1, weight_initializer=nn.Normal(0, 0.3)),
        nn.Dropout(0.3),
        nn.Activation("leaky_relu"),
        nn.MaxAbsNorm(),
        nn.Scale(initializer="uniform"),
        nn.ParametricActivation("elu", alpha=0.4, learning_rate_factor=0.1),
        nn.Dense(4, use_bias=False),
    ]
    return nn.Network(layers, (3, 4), backend="numpy", **options)


INPUTS = {"description": "uint8 images, scaled by 1/255; 4 classes", "dtype": "uint8", "low": 0, "high": 255}


def through_json(config):
    return json.loads(json.dumps(config, allow_nan=False))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_configuration_recreates_the_network(dtype):
    net = network(seed=2**62 + 1, dtype=dtype, input_scale=0.5)
    again = nn.Network.from_config(through_json(net.config()), backend="numpy")
    assert again.config() == net.config()
    assert same_weights(again, net)
    x, y = images(rows=30)
    for one in (net, again):
        one.fit(x, y, epochs=2, batch_size=8, loss="softmax_cross_entropy")
    assert same_weights(again, net)
    assert again.config() == net.config()


def test_a_network_with_restored_weights_continues_as_the_original():
    x, y = images(rows=30)
    net = network(seed=3)
    net.fit(x, y, epochs=2, batch_size=8, loss="softmax_cross_entropy")
    again = nn.Network.from_config(through_json(net.config()), backend="numpy")
    again.set_weights(net.get_weights())
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    for one in (net, again):
        one.fit(x, y, epochs=1, batch_size=8, optimizer=nn.SGD(0.1))
    assert same_weights(again, net)


def test_another_seed_makes_a_new_network():
    x, y = images(rows=30)
    net = network(seed=3)
    net.fit(x, y, epochs=2, batch_size=8, loss="softmax_cross_entropy")
    fresh = nn.Network.from_config(net.config(), backend="numpy", seed=4)
    assert same_weights(fresh, network(seed=4))
    assert (fresh.seed, fresh.steps_trained, fresh.epochs_trained) == (4, 0, 0)
    assert fresh.loss is net.loss
    with pytest.raises(InvalidInputError, match="seed must be a whole number"):
        nn.Network.from_config(net.config(), backend="numpy", seed=-1)


def test_a_configuration_may_omit_defaults():
    net = nn.Network.from_config({"layers": [{"kind": "dense", "units": 2}], "input_shape": 3}, backend="numpy")
    assert same_weights(net, nn.Network([nn.Dense(2)], 3, backend="numpy"))


def test_the_model_file_uses_the_same_form(tmp_path):
    net = network()
    net.save(tmp_path / "model.safetensors")
    assert read_model(tmp_path / "model.safetensors")[0] == net.config()


def test_a_user_defined_layer_is_passed_in():
    config = through_json(nn.Network([Shift(2), nn.Dense(2)], 3, backend="numpy").config())
    assert nn.Network.from_config(config, "numpy", custom_layers=[Shift]).layers[0].by == 2
    with pytest.raises(InvalidInputError, match=r"layers\[0\]: unknown layer 'shift'.*custom_layers=\[\.\.\.\]"):
        nn.Network.from_config(config, "numpy")
    config["layers"][0]["by"] = "two"
    with pytest.raises(InvalidInputError, match=r"layers\[0\] cannot be made from .*'by': 'two'"):
        nn.Network.from_config(config, "numpy", custom_layers=[Shift])


class Dense(Shift):
    """A layer with the name of a built-in one."""


@pytest.mark.parametrize(
    ("custom_layers", "message"),
    [
        (Shift, "custom_layers must be a list of classes"),
        ([Shift(1)], "custom_layers must hold subclasses of Layer"),
        ([int], "custom_layers must hold subclasses of Layer"),
        ([Dense], "two layers are called Dense"),
    ],
)
def test_custom_layers_must_be_a_list_of_layer_classes(custom_layers, message):
    with pytest.raises(InvalidInputError, match=message):
        nn.Network.from_config(network().config(), "numpy", custom_layers=custom_layers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layres": []}, "unknown key in a network's configuration 'layres': did you mean 'layers'"),
        ({"layers": "dense"}, "layers must be a list of dicts, received str"),
        ({"layers": []}, "at least one layer"),
        ({"layers": [{"units": 3}]}, r"layers\[0\] must be a dict such as .*received \{'units': 3\}"),
        ({"layers": [{"kind": "densf", "units": 3}]}, r"layers\[0\]: unknown layer 'densf': did you mean 'dense'"),
        ({"layers": [{"kind": "dense"}]}, r"layers\[0\] cannot be made from .*'units'"),
        ({"layers": [{"kind": "dropout", "rate": 3}]}, r"layers\[0\] .*dropout rate must be in \[0, 1\), received 3"),
        ({"layers": [{"kind": "flatten", "rate": 3}]}, r"layers\[0\] .*argument"),
        ({"layers": [{"kind": "dense", "units": 3}]}, r"layers\[0\]: Dense takes flat samples"),
        ({"dtype": None}, "dtype must be 'float32' or 'float64', received None"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"input_scale": float("nan")}, "input_scale must be a finite number"),
        ({"input_scale": 0}, "input_scale must not be 0"),
        ({"inputs": "uint8"}, "inputs must describe the training inputs, received 'uint8'"),
        ({"inputs": {"dtype": "uint8"}}, "inputs must describe"),
        ({"inputs": {**INPUTS, "high": "x"}, "input_scale": 1}, "inputs: high must be a finite number"),
        ({"inputs": {**INPUTS, "low": float("nan")}, "input_scale": 1}, "inputs: low must be a finite number"),
        ({"inputs": {**INPUTS, "dtype": 3}, "input_scale": 1}, "inputs: dtype must be a short line"),
        ({"inputs": {**INPUTS, "dtype": "\x1b[2J"}, "input_scale": 1}, "inputs: dtype must be a short line"),
        ({"inputs": {**INPUTS, "description": "x" * 2000}, "input_scale": 1}, "description must be a short line"),
        ({"inputs": INPUTS}, "a network with inputs must have an input_scale"),
        ({"epochs_trained": -2}, "epochs_trained must be a whole number of at least 0"),
    ],
)
def test_an_error_names_its_position(change, message):
    with pytest.raises(InvalidInputError, match=message):
        nn.Network.from_config({**network().config(), **change}, "numpy")


def test_missing_arrays_are_named():
    with pytest.raises(InvalidInputError, match="must have 'layers' and 'input_shape'"):
        nn.Network.from_config({}, "numpy")
    with pytest.raises(InvalidInputError, match=r"must be a dict, .* received str"):
        nn.Network.from_config(json.dumps(network().config()), "numpy")


def places(value, path=()):
    """The paths of all values inside a JSON value, its own last."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))
    if path:
        yield path


BAD = (None, True, -1, 0.5, float("nan"), float("inf"), 10**30, "", "x" * 50, [], [[]], {}, {"name": []}, {"kind": 1})


@pytest.mark.parametrize("place", list(places(network().config())), ids=lambda path: ".".join(map(str, path)))
def test_any_other_value_anywhere_makes_a_network_or_one_clear_error(place):
    *outer, last = place
    for value in BAD:
        config = copy.deepcopy(network().config())
        inner = config
        for key in outer:
            inner = inner[key]
        inner[last] = value
        try:
            made = nn.Network.from_config(config, "numpy")
        except InvalidInputError:
            continue
        again = nn.Network.from_config(through_json(made.config()), "numpy")
        assert same_weights(again, made)


def test_an_unknown_name_stays_one():
    with pytest.raises(UnknownNameError):
        nn.Network.from_config({**network().config(), "loss": "hinge"}, "numpy")
