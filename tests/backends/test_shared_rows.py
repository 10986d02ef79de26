"""Rows that stay in the caller's memory, if the device uses host memory."""

from __future__ import annotations

import numpy as np
import pytest

from nnbackend.data.feed import Examples
from tests.helpers import classifier, images, same_weights

X, Y = images(70)
OPTIONS = {"epochs": 2, "batch_size": 16, "loss": "softmax_cross_entropy", "verbose": False}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_training_and_evaluation_change_no_rows(backend, dtype):
    x = X.astype(dtype)
    net = classifier(backend)
    net.fit(x, Y, **OPTIONS, validation_data=(x, Y))
    net.train_on_batch(x, Y)
    net.train_on_batch(x[::-1], Y)
    net.evaluate(x, Y)
    np.testing.assert_array_equal(x, X)


def test_arrays_that_cannot_stay_are_copied(backend):
    """Transposed, unaligned and read-only rows give the same network."""
    x = np.ascontiguousarray(X, np.float32)
    unaligned = np.frombuffer(bytearray(x.nbytes + 1), np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    plain = classifier(backend)
    plain.fit(x, Y, **OPTIONS)
    for other in (np.asfortranarray(x), unaligned, read_only):
        net = classifier(backend)
        net.fit(other, Y, **OPTIONS)
        assert same_weights(net, plain)


def test_only_rows_that_nobody_writes_to_are_shared(numba_backend):
    x, y = X.astype(np.float32), Y.astype(np.int32)
    shared = Examples.on_device(numba_backend, x, y, None, 1.0, shared=True)
    assert np.shares_memory(shared.x, x)
    assert not np.shares_memory(shared.targets, y)
    assert not np.shares_memory(Examples.on_device(numba_backend, x, y, None, 1.0).x, x)
