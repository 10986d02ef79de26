"""Details of the two kernels that compute a training step, each with a network that depends on it."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.cupy import dense_step
from nnbackend.backends.cupy.dense_program import THREADS
from nnbackend.backends.philox import uniform_words
from tests.backends.cupy.dense_networks import BATCH, FEATURES, RELU, ROWS, watched
from tests.helpers import images, same_weights

pytestmark = pytest.mark.usefixtures("needs_compiler")


def test_a_wide_layer_with_four_rows_in_a_block(monkeypatch):
    """A frozen one, whose gradients need no memory. More columns than the threads take at once."""
    x, y = images(ROWS, FEATURES)
    made = []
    for blocks in (64, 2):
        monkeypatch.setattr(dense_step, "_ENOUGH_BLOCKS", blocks)
        backend, log = watched()
        layers = [nn.Dense(4 * THREADS + 3, trainable=False, **RELU), nn.Dense(4)]
        made.append(nn.Network(layers, FEATURES, backend=backend, seed=3))
        made[-1].fit(x, y, epochs=1, batch_size=BATCH, loss="softmax_cross_entropy", verbose=False)
        assert f"rows_{1 if blocks == 64 else 4}" in log
    assert same_weights(*made)


def compare(layers, features=FEATURES, **options):
    """Train in float64 on the CPU build and with NumPy."""
    x, y = images(ROWS, features)
    losses = []
    for backend in (watched()[0], "numpy"):
        made = nn.Network(layers, features, backend=backend, dtype="float64", seed=3)
        given = {"epochs": 2, "batch_size": BATCH, "loss": "softmax_cross_entropy", "verbose": False, **options}
        losses.append(np.concatenate(made.fit(x, y, **given).step_losses))
    np.testing.assert_allclose(*losses, rtol=1e-10)


def test_factors_of_more_columns_than_a_tile_has():
    compare([nn.Scale(initializer=np.linspace(0.5, 1.5, 70)), nn.Dense(4)], 70, optimizer=nn.SGD(0.1))


@pytest.mark.parametrize("beyond", [0, 1])
def test_dropout_keeps_a_word_at_the_threshold(beyond, monkeypatch):
    """A rate that is exactly one of the random words of the first step, and the next larger one."""
    drawn = []
    dropout = nn.NumpyBackend.dropout

    def watch(self, x, rate, seed, stream, counter, out, first_row=0):
        drawn.append(uniform_words(x.size, seed, stream, int(counter[1])))
        dropout(self, x, rate, seed, stream, counter, out, first_row)

    with monkeypatch.context() as patch:
        patch.setattr(nn.NumpyBackend, "dropout", watch)
        compare([nn.Dense(5), nn.Dropout(0.5), nn.Dense(4)], epochs=1)
    word = int(drawn[0].ravel()[7])
    compare([nn.Dense(5), nn.Dropout((word + beyond) / 2**32), nn.Dense(4)], epochs=1)
