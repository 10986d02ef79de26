"""The order of the rows in an epoch."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nnbackend.data.order import epoch_order


def test_shuffling_gives_every_epoch_an_order_of_its_own():
    first, second = epoch_order(0, 0, 100), epoch_order(0, 1, 100)
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, epoch_order(0, 0, 100))
    assert not np.array_equal(first, epoch_order(1, 0, 100))


@pytest.mark.parametrize(("seed", "epoch", "count"), [(0, 0, 100), (2**63 - 1, 3, 7), (5, 2**31, 1000)])
def test_an_order_is_that_of_a_new_generator(seed, epoch, count):
    """Whatever was drawn before in the same thread, or is drawn in another."""
    expected = np.random.Generator(np.random.Philox(key=[seed, (1 << 32) + epoch])).permutation(count)
    results = []
    thread = threading.Thread(target=lambda: results.append(epoch_order(seed, epoch, count)))
    thread.start()
    epoch_order(seed + 1, 5, 33)
    np.testing.assert_array_equal(epoch_order(seed, epoch, count), expected)
    thread.join()
    np.testing.assert_array_equal(results[0], expected)
