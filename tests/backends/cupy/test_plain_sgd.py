"""Plain SGD fused into the products: which steps use it, and that results are the same."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.cupy import CupyBackend
from tests.backends.cupy.emulator import EmulatedRuntime
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
    train(CupyBackend(runtime), optimizer, layers=layers, **options)
    return runtime.log.count("sgd")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("epilogues", [True, False])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
def test_a_run_agrees_with_the_reference(emulated, loss, epilogues, dtype):
    """With a varying rate, sample weights and a shorter last batch."""
    options = {"loss": loss, "sample_weight": np.linspace(0.5, 1.5, 75)}
    schedule = nn.ExponentialDecay(0.3, 0.5)
    expected, reference = train("numpy", nn.SGD(schedule), **options)
    backend = CupyBackend(EmulatedRuntime(), epilogues=epilogues)
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


def test_many_bias_elements_have_a_separate_launch(monkeypatch):
    monkeypatch.setattr("nnbackend.backends.cupy.plain_sgd._MAX_BIAS_ELEMENTS", 19)
    assert updates(nn.SGD(0.1)) == 30
    monkeypatch.setattr("nnbackend.backends.cupy.plain_sgd._MAX_BIAS_ELEMENTS", 20)
    assert updates(nn.SGD(0.1)) == 0
