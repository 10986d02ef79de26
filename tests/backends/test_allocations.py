"""A replayed step works on existing buffers: limits on additional memory, measured by tracemalloc.

NumPy reports its arrays to tracemalloc. Limits are in KiB above the memory at the start of the step.
"""

from __future__ import annotations

import functools
import tracemalloc

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.numba import NumbaBackend
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.presets import PRESETS

#: A chunk of the NumPy backend: 32,768 elements.
PIECE = {"float32": 128, "float64": 256}


class PlainNumbaBackend(NumbaBackend):
    """Jitted kernels called one by one."""

    def executor(self, calls):
        return NumpyBackend.executor(self, calls)


#: Adam on NumPy needs three chunks at a time, and a few KiB for NumPy's buffers. Jitted kernels need no temporary
#: arrays.
LIMITS = {NumpyBackend: 4 * PIECE["float32"], PlainNumbaBackend: 32, NumbaBackend: 32}


def allocated(network, x, y, loss, optimizer, sample_weight=None):
    """The peak memory of a replayed step in KiB, beyond its buffers."""
    train = functools.partial(network.train_on_batch, x, y, sample_weight=sample_weight)
    train(loss=loss, optimizer=optimizer)
    step = network.batch_step

    def replay():
        step._replay.counter[:] = 0
        step._executor.run(1)

    replay()
    tracemalloc.start()
    try:
        replay()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        replay()
        return (tracemalloc.get_traced_memory()[1] - before) / 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("preset", [name for name, recipe in PRESETS.items() if not recipe.filters])
@pytest.mark.parametrize("make", LIMITS)
def test_a_step_of_the_three_nets_allocates_almost_nothing(make, preset):
    recipe = PRESETS[preset]
    network = nn.Network(recipe.layers(10), 784, backend=make(threads=1), seed=0, input_scale=1 / 255)
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (recipe.batch_size, 784), dtype=np.uint8)
    y = generator.integers(0, 10, recipe.batch_size)
    assert allocated(network, x, y, recipe.loss, recipe.make_optimizer()) < LIMITS[make]


CASES = {
    "softmax_cross_entropy": nn.SGD(1e-3, weight_decay=1e-3),
    "sigmoid_cross_entropy": nn.SGD(1e-3, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "mean_squared_error": nn.RMSprop(1e-3, weight_decay=1e-3),
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", CASES)
@pytest.mark.parametrize("dtype", PIECE)
def test_every_operation_of_numpy_works_in_pieces(dtype, loss):
    """Six chunks for the gradient of GELU; random numbers for dropout of any dtype; a matrix has fourteen chunks."""
    rows, features = 1500, 300
    layers = [nn.Activation(name) for name in ACTIVATIONS]
    layers = [nn.Dense(features, l1=1e-4, l2=1e-4), *layers, nn.Dropout(0.1), nn.MaxAbsNorm(), nn.Dense(features)]
    network = nn.Network(layers, features, backend=NumpyBackend(threads=1), dtype=dtype, seed=0)
    generator = np.random.default_rng(0)
    x, targets = generator.random((2, rows, features)).astype(dtype)
    targets /= targets.sum(axis=1, keepdims=True)
    weights = np.linspace(0.5, 1, rows)
    assert allocated(network, x, targets, loss, CASES[loss], weights) < {"float32": 1280, "float64": 7 * 256}[dtype]
