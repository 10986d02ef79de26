"""Weights of rows and classes: only their ratios matter, whatever their size."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.data.targets import Targets
from nnbackend.data.weights import class_weights, combine_weights
from nnbackend.errors import InvalidInputError
from nnbackend.losses import LOSSES
from tests.helpers import classifier, images, same_weights

X, Y = images(70)
OPTIONS = {"epochs": 2, "batch_size": 16, "loss": "softmax_cross_entropy", "verbose": False}
LABELS = np.array([0, 1, 1, 2])
TARGETS = Targets.prepare(LOSSES["softmax_cross_entropy"], LABELS, 4, 3, np.float64)


def combined(sample_weight=None, class_weight=None, **options):
    return combine_weights(TARGETS, sample_weight, class_weight, 3, np.float64, **options)


def test_ordinary_weights_have_the_bits_of_the_plain_formula():
    rows, classes = np.random.default_rng(0).uniform(0, 30, 4), np.array([0.1, 7.3, 1e-4])
    product = rows * classes[LABELS]
    np.testing.assert_array_equal(combined(rows, classes), product / np.mean(product))
    np.testing.assert_array_equal(combined(rows), rows / np.mean(rows))


@pytest.mark.parametrize("factor", [1e308, 1e-300, 1e-320])
def test_weights_of_any_size(factor):
    np.testing.assert_array_equal(combined(np.full(4, factor)), np.ones(4))
    np.testing.assert_array_equal(combined(np.full(4, factor), np.full(3, factor)), np.ones(4))
    np.testing.assert_array_equal(combined(class_weight=dict.fromkeys(range(3), factor)), np.ones(4))
    np.testing.assert_array_equal(combined(np.array([0, 1, 1, 0]) * factor), [0, 2, 2, 0])
    # Only class 1 has rows that count.
    np.testing.assert_array_equal(combined([0, 1, 1, 0], [1e308, factor, 1e308]), [0, 2, 2, 0])


def test_ranks_with_rows_of_their_own_share_one_mean():
    for other, expected in (((2.0, 4, 0), [1.0] * 4), ((0.0, 4, 0), [2.0] * 4), ((2.0, 4, 2000), [0.0] * 4)):
        weights = combined(np.full(4, 0.5), exchange=lambda value, other=other: [value, other])
        np.testing.assert_array_equal(weights, expected)
    huge = combined(np.full(4, 1e308), exchange=lambda value: [value, (2.0, 4, 0)])
    np.testing.assert_array_equal(huge, np.full(4, 2.0))
    with pytest.raises(InvalidInputError, match="all weights are zero"):
        combined(np.zeros(4), exchange=lambda value: [value, value])


def test_balanced_classes_have_the_same_total_weight():
    np.testing.assert_allclose(class_weights("balanced", TARGETS, 3), [4 / 3, 4 / 6, 4 / 3])
    # A class without rows does not count.
    np.testing.assert_allclose(class_weights("balanced", TARGETS, 4), [4 / 3, 4 / 6, 4 / 3, 4 / 3])
    elsewhere = np.array([0, 0, 2])
    shared = class_weights("balanced", TARGETS, 3, lambda counts: [counts, elsewhere])
    np.testing.assert_allclose(shared, [2, 1, 2 / 3])


def test_training_with_huge_weights(backend):
    plain = classifier(backend)
    plain.fit(X, Y, **OPTIONS, sample_weight=np.ones(70))
    for weights in ({"sample_weight": np.full(70, 1e308)}, {"class_weight": dict.fromkeys(range(4), 1e308)}):
        net = classifier(backend)
        net.fit(X, Y, **OPTIONS, **weights)
        assert same_weights(net, plain)


def test_one_batch_and_evaluation_with_huge_weights():
    plain, net = classifier(), classifier()
    huge, ones, loss = np.full(70, 1e308), np.ones(70), {"loss": OPTIONS["loss"]}
    assert net.evaluate(X, Y, **loss, sample_weight=huge) == plain.evaluate(X, Y, **loss)
    found = net.train_on_batch(X, Y, **loss, sample_weight=huge)
    assert found == plain.train_on_batch(X, Y, **loss, sample_weight=ones)
    assert same_weights(net, plain)


def test_balanced_weights_are_those_of_scikit_learn():
    one, other = classifier(), classifier()
    one.fit(X, Y, **OPTIONS, class_weight="balanced")
    other.fit(X, Y, **OPTIONS, class_weight=70 / (4 * np.bincount(Y)))
    assert same_weights(one, other)


def test_weights_of_a_stream_beyond_the_range_of_the_network():
    stream = nn.BatchStream(lambda epoch: [(X, Y, np.full(70, 1e308))], rows=70)
    with pytest.raises(InvalidInputError, match=r"sample_weight holds 1e\+308, beyond the range of float32"):
        classifier().fit(stream, **OPTIONS)
