"""The NumPy backend computes large arrays in chunks, whose boundaries must not change the results."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends import numpy as numpy_backend
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.philox import uniform_words


@pytest.mark.parametrize(("seed", "stream", "step"), [(0, 0, 0), (2**63 - 1, 3, 2**33 + 1)])
def test_a_part_of_the_words_equals_that_part_of_all_words(seed, stream, step):
    whole = uniform_words(103, seed, stream, step)
    for first in range(9):
        for size in (0, 1, 2, 5, 90):
            part = uniform_words(size, seed, stream, step, first)
            np.testing.assert_array_equal(part, whole[first : first + size])


@pytest.mark.parametrize("shape", [(0,), (1,), (6,), (7,), (100,), (3, 2), (3, 3), (5, 7), (4, 100), (4, 0)])
def test_pieces_cover_everything_once_and_in_order(shape, monkeypatch):
    monkeypatch.setattr(numpy_backend, "_CHUNK", 7)
    array = np.arange(np.prod(shape)).reshape(shape)
    chunks = [array[part] for part in numpy_backend._chunks(array)]
    np.testing.assert_array_equal(np.concatenate(chunks), array)
    assert all(chunk.size <= 7 or len(chunk) == 1 for chunk in chunks)


@pytest.mark.parametrize("optimizer", [nn.SGD, nn.Adam, nn.AdamW, nn.RMSprop])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
def test_a_network_learns_the_same_with_small_chunks(loss, optimizer, monkeypatch):
    """For chunks of any size, down to single rows; only the order of the penalty sums differs."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(20, 13)), generator.uniform(0.1, 1, (20, 6))
    y /= y.sum(axis=1, keepdims=True)

    def trained():
        layers = [nn.Dense(9, name, l1=1e-3, l2=1e-3) for name in ACTIVATIONS]
        layers = [nn.MaxAbsNorm(), nn.Dense(13), nn.MaxAbsNorm(), nn.Dropout(0.2), *layers, nn.Dense(6)]
        network = nn.Network(layers, 13, backend="numpy", dtype="float64", seed=3)
        arguments = {"loss": loss, "optimizer": optimizer(1e-3, weight_decay=1e-3), "batch_size": 8}
        history = network.fit(x, y, epochs=3, sample_weight=np.linspace(0.5, 2, 20), verbose=False, **arguments)
        return history["loss"], network.get_weights()

    expected_loss, expected = trained()
    for chunk in (1, 50):
        monkeypatch.setattr(numpy_backend, "_CHUNK", chunk)
        losses, weights = trained()
        np.testing.assert_allclose(losses, expected_loss, rtol=1e-12)
        for name, values in expected.items():
            np.testing.assert_allclose(weights[name], values, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sigmoid_of_large_negative_numbers_is_the_exponential(dtype):
    z = np.array([[-80, -40, -30, -17], [np.nan, -1, 0, 50]], dtype)
    backend = numpy_backend.NumpyBackend()
    out = np.empty_like(z)
    for place in (out, z.copy()):
        given = z if place is out else place
        backend.activation_forward(given, "sigmoid", 0.0, place)
        # Of the others the sum of 1 and a hyperbolic tangent keeps fewer digits.
        rounded = (-80, -40) if dtype == np.float64 else (-80, -40, -30, -17)
        np.testing.assert_allclose(place[0, : len(rounded)], np.exp(rounded), rtol=1e-5)
        np.testing.assert_allclose(place[1, 1:], 1 / (1 + np.exp(-z[1, 1:])), rtol=1e-6)
        assert np.isnan(place[1, 0])
