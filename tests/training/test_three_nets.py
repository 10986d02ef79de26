"""The three reference nets, at full size: the first fifty steps agree between backends."""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest

import nnbackend as nn
from nnbackend import datasets
from tests.conftest import make_backend

STEPS = 50

#: Name -> hidden units, activation, batch size, optimiser.
NETS = {
    "784-40-10": ((40,), "sigmoid", 100, lambda: nn.SGD(0.5)),
    "784-200-80-10": ((200, 80), "relu", 256, lambda: nn.SGD(0.1)),
    "784-500-1000-300-10": ((500, 1000, 300), "relu", 100, lambda: nn.Adam(1e-3)),
}


@functools.cache
def images() -> tuple[np.ndarray, np.ndarray]:
    """MNIST if NNBACKEND_DATA_DIR is set; otherwise noise of the same shape with a weak dependence on the label."""
    rows = STEPS * 256
    if os.environ.get("NNBACKEND_DATA_DIR"):
        data = datasets.load("mnist", download=False)
        return data.x_train[:rows], data.y_train[:rows]
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, rows)
    ink = generator.random((10, 784)) < 0.2
    pixels = generator.integers(0, 256, (rows, 784)) * (ink[labels] | (generator.random((rows, 784)) < 0.05))
    return pixels.astype(np.uint8), labels


@functools.cache
def step_losses(net: str, backend: str, dtype: str) -> np.ndarray:
    hidden, activation, batch_size, optimizer = NETS[net]
    layers = [nn.Dense(units, activation=activation) for units in hidden]
    network = nn.Network(
        [*layers, nn.Dense(10)], 784, backend=make_backend(backend), seed=0, dtype=dtype, input_scale=1 / 255
    )
    x, y = images()
    rows = STEPS * batch_size
    history = network.fit(
        x[:rows], y[:rows], epochs=1, batch_size=batch_size, loss="softmax_cross_entropy", optimizer=optimizer()
    )
    return history.step_losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("other", ["numba", "torch:cpu", pytest.param("cupy", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("net", NETS)
def test_the_first_fifty_steps_agree(net, dtype, tolerance, other):
    losses, reference = step_losses(net, other, dtype), step_losses(net, "numpy", dtype)
    assert len(reference) == STEPS
    # The networks have learned something, so the agreement is not trivial.
    assert reference[-10:].mean() < 0.9 * reference[:3].mean()
    np.testing.assert_allclose(losses, reference, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["numba", "torch:cpu", pytest.param("cupy", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("net", NETS)
def test_runs_of_full_size_are_bit_identical(net, other):
    again = step_losses.__wrapped__(net, other, "float32")
    assert again.tobytes() == step_losses(net, other, "float32").tobytes()
