"""Weights to and from PyTorch's state dicts and Keras's lists; nothing changes on an error."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError
from nnbackend.interop import keras, torch
from tests.helpers import images, same_weights


def network(dtype="float32", seed=0, backend="numpy") -> nn.Network:
    layers = [
        nn.Flatten(),
        nn.Dense(5, activation="relu", bias_initializer=nn.Normal()),
        nn.Dropout(0.5),
        nn.Dense(6, use_bias=False),
        nn.Activation("tanh"),
        nn.Dense(4, bias_initializer=nn.Normal()),
    ]
    return nn.Network(layers, (3, 4), backend=backend, dtype=dtype, seed=seed)


#: Flatten is 0, Dense and its ReLU 1 and 2, Dropout 3, Dense 4, Activation 5, Dense 6.
SHAPES = {"1.weight": (5, 12), "1.bias": (5,), "4.weight": (6, 5), "6.weight": (4, 6), "6.bias": (4,)}


def test_a_state_dict_has_the_names_and_shapes_of_a_sequential():
    net = network()
    state = torch.state_dict(net, tensors=False)
    assert {name: array.shape for name, array in state.items()} == SHAPES
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in state.values())
    np.testing.assert_array_equal(state["4.weight"].T, net.get_weights()["layers.3.weight"])
    state["6.bias"][:] = 7
    assert not (net.get_weights()["layers.5.bias"] == 7).any()


def test_a_list_alternates_kernels_and_biases():
    net = network()
    weights = keras.get_weights(net)
    assert [array.shape for array in weights] == [(12, 5), (5,), (5, 6), (6, 4), (4,)]
    np.testing.assert_array_equal(weights[2], net.get_weights()["layers.3.weight"])


def test_configurations_round_trip(backend):
    source = network(backend=backend)
    for names in (None, ["fc1", "fc2", "head"]):
        target = network(seed=1, backend=backend)
        torch.load_state_dict(target, torch.state_dict(source, names, tensors=False), names)
        assert same_weights(target, source)
    target = network(seed=1, backend=backend)
    keras.set_weights(target, keras.get_weights(source))
    assert same_weights(target, source)


def test_lists_and_other_dtypes_are_taken():
    source, target = network("float64"), network("float32", seed=1)
    torch.load_state_dict(
        target, {name: array.tolist() for name, array in torch.state_dict(source, tensors=False).items()}
    )
    assert same_weights(target, network("float32"))
    keras.set_weights(source, [np.ones(array.shape, int) for array in keras.get_weights(source)])
    assert all((array == 1).all() for array in source.get_weights().values())


STATE = torch.state_dict(network(), tensors=False)
LIST = keras.get_weights(network())


def without(name):
    return {key: value for key, value in STATE.items() if key != name}


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        (without("4.weight"), {}, r"the state dict lacks 4\.weight; if its layers have other names, list one"),
        ({**STATE, "4.bias": np.ones(6)}, {}, r"has 4\.bias, which the network does not have"),
        (STATE, {"names": ["a", "b", "c"]}, r"lacks a\.weight, .* and has 1\.weight, 1\.bias"),
        ({f"{n}.x": 0 for n in range(300)}, {}, r"has 0\.x, 1\.x, 2\.x, 3\.x, 4\.x, 5\.x and 294 more"),
        (
            {**STATE, "4.weight": STATE["4.weight"].T},
            {},
            r"4\.weight must have shape \(6, 5\), \(outputs, inputs\), for layers\.3\.weight, received \(5, 6\)",
        ),
        ({**STATE, "6.bias": np.ones(5)}, {}, r"6\.bias must have shape \(4,\) for layers\.5\.bias, received \(5,\)"),
        ({**STATE, "6.bias": [1, 2, np.nan, 4]}, {}, r"6\.bias holds NaN or infinity"),
        ({**STATE, "6.bias": [1e300, 2, 3, 4]}, {}, r"6\.bias holds values beyond the range of float32"),
        ({**STATE, "6.bias": list("abcd")}, {}, r"6\.bias must hold numbers"),
        ([1, 2], {}, "a state dict is a dict of arrays by name, .* received list"),
        (
            STATE,
            {"names": ["a", "b"]},
            "names must be a list of 3 different names, one for each layer with weights",
        ),
        (STATE, {"names": ["a", "b", "a"]}, "names must be a list of 3 different names"),
        (STATE, {"names": "abc"}, "names must be a list of 3 different names"),
        (STATE, {"names": [1, 2, 3]}, "names must be a list of 3 different names"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(state, options, message):
    target = network(seed=1)
    with pytest.raises(InvalidInputError, match=message):
        torch.load_state_dict(target, state, **options)
    assert same_weights(target, network(seed=1))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (LIST[:-1], r"the network has 5 arrays \(weights\[0\] \(kernel\), weights\[1\] \(bias\).*received a list of 4"),
        ([*LIST, LIST[0]], "received a list of 6"),
        (
            [*LIST[:3], LIST[3].T, LIST[4]],
            r"weights\[3\] \(kernel\) must have shape \(6, 4\), \(inputs, outputs\), for layers\.5\.weight, "
            r"received \(4, 6\)",
        ),
        ([*LIST[:4], np.full(4, np.inf)], r"weights\[4\] \(bias\) holds NaN or infinity"),
        (np.ones(5), "weights must be a list of arrays, .* received ndarray"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(weights, message):
    target = network(seed=1)
    with pytest.raises(InvalidInputError, match=message):
        keras.set_weights(target, weights)
    assert same_weights(target, network(seed=1))


class Factors(nn.Layer):
    """A user-defined layer with a parameter that PyTorch does not have."""

    def parameters(self, input_shape):
        return (nn.Parameter("scale", input_shape, nn.Normal()),)

    def forward(self, step, x):
        return x, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


def test_parameters_of_a_user_defined_layer_are_not_exported():
    net = nn.Network([nn.Dense(3), Factors()], 2, backend="numpy")
    with pytest.raises(InvalidInputError, match=r"layers\.1\.scale belongs to a user-defined layer, Factors\(\)"):
        torch.state_dict(net, tensors=False)


def test_tensors_without_pytorch_are_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"https://pytorch\.org, .* tensors=False"):
        torch.state_dict(network())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pytorch_predicts_alike_with_them(dtype):
    library = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    modules = library.nn
    module = modules.Sequential(
        modules.Flatten(),
        modules.Linear(12, 5),
        modules.ReLU(),
        modules.Dropout(0.5),
        modules.Linear(5, 6, bias=False),
        modules.Tanh(),
        modules.Linear(6, 4),
    ).to(getattr(library, dtype))
    module.eval()
    net, x = network(dtype, seed=1), (images(rows=7)[0] / 255).astype(dtype).reshape(7, 3, 4)
    for values in (module.state_dict(), dict(module.named_parameters())):
        torch.load_state_dict(net, values)
        expected = module(library.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(net.predict(x), expected, rtol=1e-5, atol=1e-6)
    other = network(dtype, seed=2)
    module.load_state_dict(torch.state_dict(other))
    np.testing.assert_allclose(module(library.from_numpy(x)).detach().numpy(), other.predict(x), rtol=1e-5, atol=1e-6)
    torch.load_state_dict(net, module.to(library.bfloat16).state_dict())
    np.testing.assert_allclose(net.get_weights()["layers.5.weight"], other.get_weights()["layers.5.weight"], rtol=0.01)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
def test_keras_predicts_alike_with_them(monkeypatch):
    pytest.importorskip("torch", reason="Keras runs on PyTorch here, which is not installed")
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    library = pytest.importorskip("keras", reason="compares with Keras, which is not installed")
    layers = library.layers
    model = library.Sequential(
        [
            library.Input((3, 4)),
            layers.Flatten(),
            layers.Dense(5, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(6, use_bias=False),
            layers.Activation("tanh"),
            layers.Dense(4),
        ]
    )
    net, x = network(seed=1), (images(rows=7)[0] / 255).astype(np.float32).reshape(7, 3, 4)
    keras.set_weights(net, model.get_weights())
    np.testing.assert_allclose(net.predict(x), library.ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-6)
    other = network(seed=2)
    model.set_weights(keras.get_weights(other))
    np.testing.assert_allclose(library.ops.convert_to_numpy(model(x)), other.predict(x), rtol=1e-5, atol=1e-6)
