"""A stream of pieces trains the same network as arrays."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import nnbackend as nn
from tests.helpers import classifier, images, same_weights

LOSS = "softmax_cross_entropy"
OPTIONS = {"batch_size": 8, "epochs": 3, "loss": LOSS, "shuffle": False, "verbose": False}


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    """Three steps of 8 rows of 12 bytes."""
    monkeypatch.setattr("nnbackend.data.streaming._PORTION_BYTES", 3 * 8 * 12)


def pieces_of(*arrays, size=7):
    """A function that yields rows of arrays in pieces of this size."""
    return lambda epoch: (
        tuple(array[start : start + size] for array in arrays) for start in range(0, len(arrays[0]), size)
    )


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pieces_train_the_same_network_as_arrays(backend, size):
    x, y = images(rows=75)
    whole, pieced = classifier(backend), classifier(backend)
    expected = whole.fit(x, y, **OPTIONS)
    history = pieced.fit(nn.BatchStream(pieces_of(x, y, size=size), 75), **OPTIONS)
    assert same_weights(whole, pieced)
    assert history["accuracy"] == expected["accuracy"]
    assert pieced.evaluate(nn.BatchStream(pieces_of(x, y), 75)) == whole.evaluate(x, y)


def test_weights_and_wide_targets_come_along(backend):
    x, y = images(rows=60)
    x, targets, weights = x / 255, np.eye(4)[y] * 0.9 + 0.025, np.tile([0.5, 1.5], 30)
    whole, pieced = classifier(backend), classifier(backend)
    whole.fit(x, targets, sample_weight=weights, **OPTIONS)
    pieced.fit(nn.BatchStream(pieces_of(x, targets, weights), 60), **OPTIONS)
    # The mean of these weights is 1; weights of arrays are scaled to this mean.
    assert same_weights(whole, pieced)


# ---- on one backend --------------------------------------------------------------------------------------------------


def test_every_epoch_calls_the_stream_with_its_number():
    x, y = images(rows=40)
    asked = []

    def pieces(epoch):
        asked.append(epoch)
        generator = np.random.default_rng(epoch)
        for start in range(0, 40, 10):
            yield (
                (x[start : start + 10] ^ generator.integers(0, 2, (10, 12), np.uint8)).view(type(x)),
                y[start : start + 10],
            )

    stream = nn.BatchStream(pieces, 40)
    network, optimizer = classifier(), nn.Adam()
    network.fit(stream, optimizer=optimizer, **{**OPTIONS, "epochs": 2})
    network.fit(stream, optimizer=optimizer, validation_data=stream, **{**OPTIONS, "epochs": 1})
    # Once for the first piece, and once for each epoch; validation always requests epoch 0.
    assert asked == [0, 0, 1, 0, 0, 2, 0]
    again = classifier()
    again.fit(stream, **OPTIONS)
    assert same_weights(network, again)


def test_shuffling_mixes_what_is_held_together():
    x, y = images(rows=48)
    seen = []

    class Watch(nn.NumpyBackend):
        def gather(self, source, order, counter, batch_size, scale, out):
            super().gather(source, order, counter, batch_size, scale, out)
            if out.ndim == 1:
                seen.append(out.copy())

    numbered = np.arange(48) % 4 + 0 * y
    stream = nn.BatchStream(pieces_of(x, numbered), 48)
    orders = []
    for _ in range(2):
        seen.clear()
        classifier(Watch(), seed=3).fit(stream, **{**OPTIONS, "shuffle": True, "epochs": 2})
        orders.append(np.concatenate(seen))
    first, second = orders
    np.testing.assert_array_equal(first, second)
    # Two epochs of two portions, each with its own rows in its own order.
    portions = first.reshape(4, 24)
    for portion in portions:
        np.testing.assert_array_equal(np.sort(portion), np.repeat(np.arange(4), 6))
        assert (portion != numbered[:24]).any()
    assert (portions[0] != portions[2]).any()


def test_no_more_rows_than_an_epoch_has_are_requested():
    x, y = images(rows=75)
    given = []

    def pieces(epoch):
        for start in range(0, 1000, 10):
            given.append(start)
            yield x[:10], y[:10]

    classifier().fit(nn.BatchStream(pieces, 40), **{**OPTIONS, "epochs": 1})
    assert given == [0, 0, 10, 20, 30]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:, :5], y), r"piece 3 of the stream: x must have 12 features"),
        (lambda x, y: (x, y + 9), r"piece 3 of the stream: labels must be in \[0, 4\)"),
        (lambda x, y: (np.where(x > 200, np.nan, x / 255), y), r"piece 3 of the stream: x holds \d+ NaN"),
        (lambda x, y: (x / 255, y), r"piece 3 .* like the first one, rows of shape \(12,\) uint8, .* float32"),
        (lambda x, y: (x, np.eye(4)[y] / 2 + 0.125), r"piece 3 .* targets of shape \(4,\) float32"),
        (lambda x, y: (x, y, np.ones(len(y))), r"piece 3 .* like the first one"),
        (lambda x, y: (x, y, -np.ones(len(y))), r"piece 3 .* not negative"),
        (lambda x, y: x, r"piece 3 of the stream: it must be \(x, y\).*received Images"),
    ],
)
def test_a_bad_piece_loses_at_most_its_epoch(change, message):
    x, y = images(rows=75)

    def pieces(epoch):
        for number, piece in enumerate(pieces_of(x, y, size=20)(epoch), start=1):
            yield change(*piece) if number == 3 and epoch == 1 else piece

    network, good = classifier(), classifier()
    with pytest.raises(nn.errors.InvalidInputError, match=message):
        network.fit(nn.BatchStream(pieces, 75), **OPTIONS)
    good.fit(x, y, **{**OPTIONS, "epochs": 1})
    assert same_weights(network, good)
    assert network.epochs_trained == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nnbackend-rows")]


def test_a_stream_that_ends_too_early_says_when():
    x, y = images(rows=75)
    with pytest.raises(nn.errors.InvalidInputError, match="ended after 75 of the 80 rows"):
        classifier().fit(nn.BatchStream(pieces_of(x, y), 80), **OPTIONS)
    with pytest.raises(nn.errors.InvalidInputError, match="gives no piece"):
        classifier().fit(nn.BatchStream(lambda epoch: [], 80), **OPTIONS)


@pytest.mark.parametrize("returned", [None, 5])
def test_a_function_that_returns_no_pieces_is_refused(returned):
    """As one whose `yield` or `return` was forgotten."""
    with pytest.raises(nn.errors.InvalidInputError, match=f"iterable of .*{type(returned).__name__} for epoch 0"):
        classifier().fit(nn.BatchStream(lambda epoch: returned, 80), **OPTIONS)


def test_errors_of_the_caller_propagate():
    def pieces(epoch):
        yield images(rows=20)
        raise OSError("the network is down")

    with pytest.raises(OSError, match="the network is down"):
        classifier().fit(nn.BatchStream(pieces, 80), **OPTIONS)


def test_what_makes_no_sense_is_refused():
    x, y = images(rows=20)
    with pytest.raises(nn.errors.InvalidInputError, match="generator can be gone through only once"):
        nn.BatchStream(iter([(x, y)]), 20)
    with pytest.raises(nn.errors.InvalidInputError, match="rows"):
        nn.BatchStream(pieces_of(x, y), 0)
    stream = nn.BatchStream(pieces_of(x, y), 20)
    assert repr(stream) == "<BatchStream of 20 rows an epoch>"
    for name in ("y", "sample_weight", "class_weight"):
        with pytest.raises(nn.errors.InvalidInputError, match=f"leave {name} out"):
            classifier().fit(stream, **{name: y}, **OPTIONS)
    with pytest.raises(nn.errors.InvalidInputError, match="steps_per_epoch"):
        classifier().fit(stream, steps_per_epoch=3, **OPTIONS)
    with pytest.raises(nn.errors.InvalidInputError, match="y is missing"):
        classifier().fit(x, **OPTIONS)
