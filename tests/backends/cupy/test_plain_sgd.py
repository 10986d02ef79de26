"""Plain SGD fused into the products: which steps use it, and that results are the same."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import Call
from nnbackend.backends.cupy import CupyBackend
from nnbackend.backends.cupy.plain_sgd import with_plain_sgd
from tests.backends.cupy.emulator import EmulatedRuntime
from tests.backends.cupy.memory import allocate
from tests.helpers import images

pytestmark = pytest.mark.usefixtures("needs_compiler")

LAYERS = [nn.Dense(9, activation="relu"), nn.Dropout(0.2), nn.Dense(7, activation="gelu"), nn.MaxAbsNorm(), nn.Dense(4)]


def train(backend, optimizer, dtype="float64", layers=LAYERS, loss="softmax_cross_entropy", **options):
    x, y = images(rows=75)
    if loss != "softmax_cross_entropy" or options.pop("wide", False):
        y = np.eye(4)[y] * 0.9 + 0.025
    network = nn.Network(layers, 12, backend=backend, dtype=dtype, seed=3)
    history = network.fit(x, y, epochs=3, batch_size=8, loss=loss, optimizer=optimizer, verbose=False, **options)
    return np.concatenate(history.step_losses), network


def updates(optimizer, layers=LAYERS, **options):
    """The number of separate launches of updates."""
    runtime = EmulatedRuntime()
    runtime.log = []
    train(CupyBackend(runtime, two_kernels=False), optimizer, layers=layers, **options)
    return runtime.log.count("sgd")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("epilogues", [True, False])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
def test_a_run_agrees_with_the_reference(emulated, loss, epilogues, dtype):
    """With a varying rate, sample weights and a shorter last batch."""
    options = {"loss": loss, "sample_weight": np.linspace(0.5, 1.5, 75)}
    schedule = nn.ExponentialDecay(0.3, 0.5)
    expected, reference = train("numpy", nn.SGD(schedule), **options)
    backend = CupyBackend(EmulatedRuntime(), epilogues=epilogues, two_kernels=False)
    losses, network = train(backend, nn.SGD(nn.ExponentialDecay(0.3, 0.5)), dtype, **options)
    tolerance = {"float32": 1e-4, "float64": 1e-10}[dtype]
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    for name, array in reference.get_weights().items():
        np.testing.assert_allclose(network.get_weights()[name], array, rtol=10 * tolerance, atol=tolerance)


def test_probabilities_as_targets(emulated):
    expected, _ = train("numpy", nn.SGD(0.2), wide=True)
    losses, _ = train(emulated, nn.SGD(0.2), wide=True)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)


def test_only_plain_steps_have_it():
    assert updates(nn.SGD(0.1)) == 0
    # 10 steps per epoch, whose launches are recorded by name also in replays.
    assert updates(nn.SGD(0.1, momentum=0.9)) == 30
    assert updates(nn.SGD(0.1, weight_decay=1e-3)) == 30
    assert updates(nn.SGD(0.1), layers=[nn.Dense(9, l2=1e-3), nn.Dense(4)]) == 30
    assert updates(nn.SGD(0.1), layers=[nn.Dense(9, use_bias=False), nn.Dense(4)]) == 0


def test_many_elements_of_biases_have_a_separate_launch(monkeypatch):
    monkeypatch.setattr("nnbackend.backends.cupy.plain_sgd._MAX_OTHER_ELEMENTS", 19)
    assert updates(nn.SGD(0.1)) == 30
    monkeypatch.setattr("nnbackend.backends.cupy.plain_sgd._MAX_OTHER_ELEMENTS", 20)
    assert updates(nn.SGD(0.1)) == 0


def image_layers():
    return [
        nn.Reshape((3, 4, 1)),
        nn.Conv2D(5, 2, activation="tanh", padding="same"),
        nn.BatchNormalization(),
        nn.Conv2D(4, (1, 2), use_bias=False),
        nn.LayerNormalization(),
        nn.Residual([nn.Conv2D(4, 3, padding="same", groups=2, activation="relu")]),
        nn.MaxPool2D(2),
        nn.Flatten(),
        nn.Dense(4),
    ]


@pytest.mark.parametrize("epilogues", [True, False])
def test_every_gradient_of_an_image_network_is_applied(epilogues):
    """Kernels are updated by their products, with or without a bias, in rows that are padded; all else at the end."""
    expected, reference = train("numpy", nn.SGD(0.2), layers=image_layers())
    runtime = EmulatedRuntime()
    runtime.log = []
    losses, network = train(CupyBackend(runtime, epilogues=epilogues), nn.SGD(0.2), layers=image_layers())
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    initial = nn.Network(image_layers(), 12, dtype="float64", seed=3).get_weights()
    for name, array in reference.get_weights().items():
        np.testing.assert_allclose(network.get_weights()[name], array, rtol=1e-8, atol=1e-10)
        assert not np.array_equal(array, initial[name])
    assert "sgd" not in runtime.log


class WeightFirst(nn.Dense):
    """Records the gradient of the weight before that of the input, which reads the weight."""

    def backward(self, step, saved, upstream, need_input_gradient):
        x, _ = saved
        gradient = step.like(x)
        step.record("dense_weight_gradient", x, upstream, step.gradient("weight"))
        step.record("bias_gradient", upstream, step.gradient("bias"))
        step.record("dense_input_gradient", upstream, step.parameter("weight"), gradient)
        return gradient


def test_a_weight_that_is_read_after_its_gradient_has_a_separate_launch(emulated):
    layers = [nn.Dense(9, activation="tanh"), WeightFirst(6), nn.Dense(4)]
    assert updates(nn.SGD(0.1), layers=layers) == 30
    expected, _ = train("numpy", nn.SGD(0.1), layers=layers)
    losses, _ = train(emulated, nn.SGD(0.1), layers=layers)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)


def test_gradients_that_are_no_vectors_have_a_separate_launch():
    """An operation that writes a gradient of several axes, other than the products, would be forgotten."""
    step = with_gradient((2, 3))
    assert with_plain_sgd(step, None, None) == step
    ranges = []
    fused = with_plain_sgd(with_gradient((6,)), None, lambda host: ranges.append(host))
    assert [call.operation for call in fused] == ["loss_step", "layer_norm_scale_gradient", "finish_step"]
    assert ranges[0].tolist() == [[0, 6]]


def with_gradient(shape):
    """A step in which layer normalisation writes a gradient of this shape to the start of the flat buffer."""
    gradients, x = allocate((8,), np.float64), allocate((4, 6), np.float64)
    update = Call.of("sgd_update", allocate((8,), np.float64), gradients, None, None, None, 0.0, False, 0.0)
    loss = Call.of("mean_squared_error", x, x, None, x, allocate((2, 4), np.float64))
    scale = Call.of("layer_norm_scale_gradient", x, x, x, gradients[:6].reshape(*shape))
    return [loss, scale, update, Call.of("record_loss", x, None, None, None)]
