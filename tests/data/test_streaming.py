"""Rows streamed from files or host memory train the same network as rows on the device."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.data.feed import Resident
from nnbackend.data.rows import StoredRows, as_rows
from nnbackend.data.streaming import Streamed
from nnbackend.losses import get_loss
from tests.helpers import classifier, images, rich_network, same_weights

LOSS = "softmax_cross_entropy"
OPTIONS = {"batch_size": 8, "epochs": 3, "loss": LOSS, "verbose": False}


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    """Three steps of 8 rows of 12 bytes."""
    monkeypatch.setattr("nnbackend.data.streaming._PORTION_BYTES", 3 * 8 * 12)


@pytest.fixture
def mapped(tmp_path):
    """A function that writes an array to a file and maps it."""

    def write(array: np.ndarray) -> np.ndarray:
        path = tmp_path / f"{array.dtype}-{array.shape}.npy"
        np.save(path, array)
        return np.load(path, mmap_mode="r")

    return write


@pytest.mark.parametrize("rows", [75, 72, 24, 5])
def test_streamed_rows_train_the_same_network(backend, rows):
    """Even portions, a shorter last batch, and fewer rows than a portion."""
    x, y = images(rows=rows)
    options = {**OPTIONS, "batch_size": min(rows, 8)}
    resident, streamed = rich_network(backend), rich_network(backend)
    expected = resident.fit(x, y, **options)
    history = streamed.fit(x, y, stream=True, **options)
    assert same_weights(resident, streamed)
    assert [losses.tolist() for losses in history.step_losses] == [losses.tolist() for losses in expected.step_losses]


def test_numbers_weights_and_wide_targets_stream_along(backend, mapped):
    x, y = images(rows=60)
    x = x / 255.0
    targets = np.eye(4)[y] * 0.9 + 0.025
    weights = np.linspace(0.5, 2, 60)
    resident, streamed = classifier(backend), classifier(backend)
    resident.fit(x, targets, sample_weight=weights, **OPTIONS)
    streamed.fit(mapped(x), targets, sample_weight=weights, stream=True, steps_per_epoch=9, **{**OPTIONS, "epochs": 2})
    assert not same_weights(resident, streamed)
    again = classifier(backend)
    again.fit(x, targets, sample_weight=weights, steps_per_epoch=9, **{**OPTIONS, "epochs": 2})
    assert same_weights(again, streamed)


def test_evaluating_and_predicting_from_a_file(backend, mapped, monkeypatch):
    x, y = images(rows=75)
    network = classifier(backend)
    network.fit(x, y, **OPTIONS)
    monkeypatch.setattr("nnbackend.data.intake._RESIDENT_BYTES", 10)
    for rows in (x, x.astype(float)):
        assert network.evaluate(mapped(rows), y, batch_size=8) == network.evaluate(rows, y, batch_size=8)
        np.testing.assert_array_equal(network.predict(mapped(rows), 16), network.predict(rows, 16))


def test_an_interrupted_epoch_leaves_nothing_behind(backend):
    """A transfer pending at the end of an epoch is not mistaken for one of the next epoch."""

    class Stop(nn.Callback):
        def on_epoch_begin(self, network, epoch):
            raise KeyboardInterrupt

    x, y = images(rows=75)
    one, other = classifier(backend), classifier(backend)
    optimizers = nn.Adam(1e-2), nn.Adam(1e-2)
    with pytest.raises(KeyboardInterrupt):
        one.fit(x, y, stream=True, optimizer=optimizers[0], callbacks=[Stop()], **OPTIONS)
    for network, stream, optimizer in zip((one, other), (True, False), optimizers, strict=True):
        network.fit(x, y, stream=stream, optimizer=optimizer, **OPTIONS)
    assert same_weights(one, other)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nnbackend-rows")]


# ---- on one backend --------------------------------------------------------------------------------------------------


def test_an_interrupted_epoch_and_the_next(monkeypatch):
    """The step after an interruption starts with the first portion, regardless of pending transfers."""
    x, y = images(rows=75)
    feed = classifier().intake.feed(x, y, get_loss(LOSS), 8, stream=True)
    seen = []
    for order in (np.arange(75), np.arange(75)[::-1]):
        feed.begin(order, 0)
        assert feed.ready(0) == 3
        seen.append(feed.examples.x[:24].copy())
    feed.close()
    np.testing.assert_array_equal(seen[0], x[:24])
    np.testing.assert_array_equal(seen[1], x[::-1][:24])


def test_a_file_that_becomes_unreadable_loses_at_most_the_epoch(monkeypatch):
    x, y = images(rows=75)
    network = classifier()
    network.fit(x, y, **OPTIONS)
    before = network.get_weights()
    read, portions = StoredRows.read, iter(range(100))

    def fail(self, order, out):
        if next(portions) == 5:
            raise OSError("the disk is gone")
        read(self, order, out)

    monkeypatch.setattr(StoredRows, "read", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        network.fit(StoredRows(x, 12, np.dtype(np.uint8)), y, stream=True, **OPTIONS)
    after = network.get_weights()
    # The first epoch is complete: 4 portions.
    assert network.epochs_trained == 4
    assert not same_weights_dict(before, after)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nnbackend-rows")]
    repeated = classifier()
    repeated.fit(x, y, **OPTIONS)
    repeated.fit(x, y, **{**OPTIONS, "epochs": 1})
    assert same_weights_dict(repeated.get_weights(), after)


def same_weights_dict(one, other) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


class SmallDevice(NumpyBackend):
    free = 1000

    def free_bytes(self):
        return self.free


def test_data_too_large_for_the_device_are_streamed():
    x, y = images(rows=75)  # 900 bytes and 300 of labels
    backend = SmallDevice()
    network = classifier(backend)
    loss = get_loss(LOSS)
    assert isinstance(network.intake.feed(x, y, loss, 8), Streamed)
    assert isinstance(network.intake.feed(x, y, loss, 8, stream=False), Resident)
    backend.free = 2000
    assert isinstance(network.intake.feed(x, y, loss, 8), Resident)


def test_only_large_files_are_streamed(mapped, monkeypatch):
    x, y = images(rows=75)
    loss = get_loss(LOSS)
    assert isinstance(classifier(input_scale=1 / 255).intake.feed(mapped(x), y, loss, 8), Resident)
    monkeypatch.setattr("nnbackend.data.intake._RESIDENT_BYTES", 899)
    feed = classifier(input_scale=1 / 255).intake.feed(mapped(x), y, loss, 8)
    assert isinstance(feed, Streamed)
    assert isinstance(classifier(input_scale=1 / 255).intake.feed(x, y, loss, 8), Resident)
    # Two portions of the rows, whatever their number.
    assert feed.examples.x.nbytes == 2 * 3 * 8 * 12


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_values_of_a_file_are_checked_before_anything_changes(mapped, monkeypatch, bad):
    x, y = images(rows=75)
    x = x / 255.0
    x[41, 7] = bad
    monkeypatch.setattr("nnbackend.data.rows._LOOK", 10 * 12)
    network = classifier()
    before = network.get_weights()
    message = "beyond the range" if bad == 1e200 else "the first in row 41, feature 7"
    with pytest.raises(nn.errors.InvalidInputError, match=message):
        network.fit(mapped(x), y, stream=True, **OPTIONS)
    assert same_weights_dict(before, network.get_weights())
    assert network.loss is None


def test_a_slice_of_a_mapped_file_is_a_mapped_file(mapped):
    x, _ = images(rows=75)
    rows = as_rows(mapped(x)[5:], (12,), np.dtype(np.float32))
    assert isinstance(rows, StoredRows)
    np.testing.assert_array_equal(rows.array(), x[5:])
    out = np.empty((3, 12), np.uint8)
    rows.read(np.array([9, 2, 9]), out)
    np.testing.assert_array_equal(out, x[[14, 7, 14]])


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    x, y = images(rows=75)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["x"] = x.reshape(75, 3, 4)
        resident, streamed = classifier(input_scale=1 / 255), classifier(input_scale=1 / 255)
        resident.fit(x, y, **OPTIONS)
        streamed.fit(file["x"], y, stream=True, **OPTIONS)
        assert same_weights(resident, streamed)
        np.testing.assert_array_equal(streamed.predict(file["x"]), resident.predict(x))
