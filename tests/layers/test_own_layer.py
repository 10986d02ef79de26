"""User-defined layers, with operations of the contract or with their own functions."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.testing import check_gradients
from tests.helpers import any_device, images


class Shortcut(nn.Layer):
    """``x + tanh(x W)``: composed of operations of the contract, so it runs on every backend at full speed."""

    def parameters(self, input_shape):
        return (nn.Parameter("weight", (*input_shape, *input_shape), nn.GlorotUniform()),)

    def forward(self, step, x):
        inner, out = step.buffer(x.shape[1]), step.buffer(x.shape[1])
        step.record("dense_forward", x, step.parameter("weight"), None, "tanh", 0.0, None, inner)
        step.call(add, x, inner, out)
        return out, (x, inner)

    def backward(self, step, saved, upstream, need_input_gradient):
        x, inner = saved
        delta, downstream = step.buffer(x.shape[1]), step.buffer(x.shape[1])
        step.record("activation_gradient", inner, "tanh", 0.0, upstream, delta)
        step.record("dense_weight_gradient", x, delta, step.gradient("weight"))
        if need_input_gradient:
            step.record("dense_input_gradient", delta, step.parameter("weight"), downstream)
            step.call(add, upstream, downstream, downstream)
        return downstream


@any_device
def add(backend, one, other, out):
    """Works with arrays of NumPy and CuPy."""
    out[...] = one + other


def network(backend, dtype="float64"):
    layers = [nn.Dense(7, activation="tanh"), Shortcut(), nn.Dense(4)]
    return nn.Network(layers, 12, backend=backend, dtype=dtype, seed=1)


@pytest.mark.float64
def test_its_gradients_are_right(backend):
    x, y = images(rows=6)
    check_gradients(network(backend), x / 255, y, loss="softmax_cross_entropy", samples=10)


@pytest.mark.float64
def test_it_trains_the_same_on_every_backend(backend):
    x, y = images()
    losses = []
    for where in ("numpy", backend):
        history = network(where).fit(x, y, epochs=3, batch_size=16, loss="softmax_cross_entropy")
        losses.append(np.concatenate(history.step_losses))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("method", ["parameter", "gradient"])
def test_a_misspelt_parameter_is_named(method):
    class Misspelt(Shortcut):
        def forward(self, step, x):
            getattr(step, method)("weights")
            return x, None

    net = nn.Network([nn.Dense(3), Misspelt()], 3, backend="numpy")
    message = r"unknown parameter of layers\.1, Misspelt\(\), 'weights': did you mean 'weight'"
    with pytest.raises(UnknownNameError, match=message):
        net.predict(np.ones((2, 3)))


class Unwritten(Shortcut):
    """Does not write the gradient of its weight."""

    def parameters(self, input_shape):
        return (nn.Parameter("weight", (*input_shape, *input_shape), nn.GlorotUniform(), l2=0.1),)

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


class Adding(Shortcut):
    """Adds to the gradient of its weight, which holds that of the step before."""

    def backward(self, step, saved, upstream, need_input_gradient):
        x, inner = saved
        step.record("activation_gradient", inner, "tanh", 0.0, upstream, upstream)
        step.call(add_product, x, upstream, step.gradient("weight"))
        return upstream


def add_product(backend, x, delta, out):
    out += x.T @ delta


def test_a_gradient_that_is_added_to_is_found():
    x, y = images(rows=6)
    net = nn.Network([Adding(), nn.Dense(4)], 12, backend="numpy", dtype="float64", seed=1)
    with pytest.raises(AssertionError, match=r"layers\.0\.weight\[.*repeating the step changes the gradient"):
        check_gradients(net, x / 255, y, loss="softmax_cross_entropy", samples=10)


def test_a_penalty_without_a_gradient_is_refused():
    x, y = images(rows=6)
    net = nn.Network([Unwritten(), nn.Dense(4)], 12, backend="numpy")
    with pytest.raises(InvalidInputError, match=r"layers\.0\.weight has a penalty but no gradient"):
        net.fit(x, y, epochs=1, loss="softmax_cross_entropy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.b", (2,), nn.Zeros()), "a parameter's name must be text without dots, received 'a.b'"),
        ((3, (2,), nn.Zeros()), "a parameter's name must be text"),
        (("a", 2, nn.Zeros()), "parameter 'a' must have a tuple as its shape, received 2"),
        (("a", (), nn.Zeros()), "parameter 'a' must have at least one axis"),
        (("a", (2, -1), nn.Zeros()), "an axis of parameter 'a' must be a whole number of at least 0, received -1"),
        (("a", (2.0,), nn.Zeros()), "an axis of parameter 'a' must be a whole number"),
        (("a", (2,), "zeros"), "parameter 'a' must have an initializer such as"),
        (("a", (2,), nn.Zeros(), 0.0, -1.0), "l2 of parameter 'a' must be at least 0, received -1"),
        (("a", (2,), nn.Zeros(), float("nan")), "l1 of parameter 'a' must be a finite number"),
        (("a", (2,), nn.Zeros(), 0.0, 0.0, "no"), "trainable of parameter 'a' must be True or False"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        nn.Parameter(*arguments)


def test_a_parameter_whose_shape_is_a_list_is_saved_and_loaded():
    class Listed(Shortcut):
        def parameters(self, input_shape):
            return (nn.Parameter("weight", [*input_shape, *input_shape], nn.GlorotUniform()),)

    net = nn.Network([Listed()], 3, backend="numpy")
    net.set_weights(net.get_weights())
    assert net.model.layout.shapes() == {"layers.0.weight": (3, 3)}


def test_two_parameters_of_one_name_are_refused():
    class Doubled(Shortcut):
        def parameters(self, input_shape):
            return 2 * super().parameters(input_shape)

    with pytest.raises(
        InvalidInputError, match=r"layers\[1\]: two of its parameters have the same name: weight, weight"
    ):
        nn.Network([nn.Dense(3), Doubled()], 3, backend="numpy")
