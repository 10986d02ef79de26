"""Gradients against finite differences, in float64: every layer x activation x loss, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.testing import check_gradients

pytestmark = pytest.mark.float64

ROWS, FEATURES, OUTPUTS = 6, 5, 3

#: `tests/test_losses.py` has the others.
LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error")


def data(loss: str):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(ROWS, FEATURES))
    if loss == "softmax_cross_entropy":
        return x, generator.integers(0, OUTPUTS, ROWS)
    return x, generator.uniform(size=(ROWS, OUTPUTS))


def network(layers, backend, **options):
    return nn.Network(layers, FEATURES, backend=backend, seed=3, dtype="float64", **options)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense(backend, activation, loss):
    net = network([nn.Dense(7, activation=activation), nn.Dense(OUTPUTS)], backend)
    check_gradients(net, *data(loss), loss=loss, samples=8)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_layer_between_dense_ones(backend, activation, loss):
    layers = [nn.Dense(7), nn.Activation(activation), nn.Dense(OUTPUTS, use_bias=False)]
    check_gradients(network(layers, backend), *data(loss), loss=loss, samples=8)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "identity"])
def test_activation_of_the_output(backend, activation):
    net = network([nn.Dense(4, activation="tanh"), nn.Dense(OUTPUTS, activation=activation)], backend)
    check_gradients(net, *data("mean_squared_error"), loss="mean_squared_error", samples=8)


@pytest.mark.parametrize("loss", LOSSES)
def test_dropout_flatten_and_penalties(backend, loss):
    layers = [
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Dense(8, activation="tanh", l1=0.01, l2=0.1),
        nn.Dropout(0.5),
        nn.Dense(OUTPUTS, l2=0.3),
    ]
    check_gradients(network(layers, backend), *data(loss), loss=loss, samples=10)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Dense(7), nn.MaxAbsNorm(), nn.Dense(OUTPUTS)],
        lambda: [nn.Dense(7, activation="gelu"), nn.MaxAbsNorm(), nn.Dense(OUTPUTS)],
        lambda: [nn.Dense(7), nn.Activation("elu"), nn.MaxAbsNorm(), nn.Activation("silu"), nn.Dense(OUTPUTS)],
        lambda: [nn.Dense(7), nn.Dropout(0.4), nn.MaxAbsNorm(), nn.Dropout(0.2), nn.Dense(OUTPUTS)],
        lambda: [nn.MaxAbsNorm(), nn.Dense(7, activation="tanh"), nn.Dense(OUTPUTS)],
        lambda: [nn.Dense(7, activation="tanh"), nn.Dense(OUTPUTS), nn.MaxAbsNorm()],
        lambda: [nn.Dense(OUTPUTS), nn.Activation("softmax"), nn.MaxAbsNorm(), nn.Flatten(), nn.MaxAbsNorm()],
    ],
    ids=["dense", "gelu", "activation", "dropout", "first", "last", "twice"],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_max_abs_norm(backend, layers, loss):
    """It saves its input, which no other layer may overwrite before the backward pass."""
    check_gradients(network(layers(), backend), *data(loss), loss=loss, samples=8)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Scale(initializer="normal"), nn.Dense(7, activation="selu"), nn.Dense(OUTPUTS)],
        lambda: [nn.Dense(7, activation="tanh"), nn.Scale(), nn.Dense(OUTPUTS), nn.Scale(initializer="uniform")],
        lambda: [nn.Dense(7), nn.Scale(initializer="normal", trainable=False), nn.Dense(OUTPUTS)],
    ],
    ids=["first", "inside and last", "frozen"],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_scale(backend, layers, loss):
    check_gradients(network(layers(), backend), *data(loss), loss=loss, samples=8)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Dense(7), nn.ParametricActivation("selu", initializer="normal"), nn.Dense(OUTPUTS)],
        lambda: [nn.ParametricActivation("mish", initializer="uniform"), nn.Dense(OUTPUTS)],
        lambda: [nn.Dense(7), nn.ParametricActivation("gelu", trainable=False), nn.Dense(OUTPUTS)],
        lambda: [nn.PeriodicEmbedding(deviation=0.5), nn.Dense(OUTPUTS)],
        lambda: [nn.Dense(4), nn.PeriodicEmbedding(3, units=2, waves=3, deviation=0.5), nn.Dense(OUTPUTS)],
        lambda: [nn.Scale(), nn.PeriodicEmbedding(2, trainable=False), nn.Dense(OUTPUTS)],
        lambda: [nn.Embedding(2, 3, columns=2), nn.PeriodicEmbedding(3), nn.Dense(OUTPUTS)],
        lambda: [nn.Embedding(1, 2, columns=FEATURES), nn.Dense(OUTPUTS)],
    ],
    ids=["selu", "mish first", "frozen mix", "waves", "waves inside", "frozen waves", "both", "only categories"],
)
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mean_squared_error"])
def test_layers_on_tables(backend, layers, loss):
    check_gradients(network(layers(), backend), *data(loss), loss=loss, samples=8)


@pytest.mark.parametrize("loss", LOSSES)
def test_sample_weights(backend, loss):
    net = network([nn.Dense(6, activation="sigmoid"), nn.Dense(OUTPUTS)], backend)
    check_gradients(net, *data(loss), loss=loss, sample_weight=np.arange(1.0, ROWS + 1), samples=10)


def test_class_probabilities(backend):
    x, p = data("mean_squared_error")
    net = network([nn.Dense(6, activation="elu"), nn.Dense(OUTPUTS)], backend)
    check_gradients(net, x, p / p.sum(axis=1, keepdims=True), loss="softmax_cross_entropy", samples=10)


def test_a_wrong_gradient_is_found():
    from nnbackend.backends.numpy import NumpyBackend

    class Broken(NumpyBackend):
        def bias_gradient(self, delta, out):
            out[...] = delta.sum(axis=0) * 1.001

    net = network([nn.Dense(6, activation="tanh"), nn.Dense(OUTPUTS)], Broken())
    with pytest.raises(AssertionError, match="bias"):
        check_gradients(net, *data("softmax_cross_entropy"), loss="softmax_cross_entropy")
