"""User-defined layers, with operations of the contract or with their own functions."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.testing import check_gradients
from tests.helpers import images


class Residual(nn.Layer):
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


def add(backend, one, other, out):
    """Works with arrays of NumPy and CuPy."""
    out[...] = one + other


def network(backend, dtype="float64"):
    layers = [nn.Dense(7, activation="tanh"), Residual(), nn.Dense(4)]
    return nn.Network(layers, 12, backend=backend, dtype=dtype, seed=1)


@pytest.fixture(autouse=True)
def only_where_functions_can_be_written(request):
    if "cupy-emulated" in request.node.name:
        pytest.skip("functions of one's own work on CuPy's arrays, and the emulated device has none")


def test_its_gradients_are_right(backend):
    x, y = images(rows=6)
    check_gradients(network(backend), x / 255, y, loss="softmax_cross_entropy", samples=10)


def test_it_trains_the_same_on_every_backend(backend):
    x, y = images()
    losses = []
    for where in ("numpy", backend):
        history = network(where).fit(x, y, epochs=3, batch_size=16, loss="softmax_cross_entropy")
        losses.append(np.concatenate(history.step_losses))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)
    assert history["loss"][-1] < history["loss"][0]
