"""A killed and resumed run is bit-identical to an uninterrupted one, wherever its rows are."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import nnbackend as nn
from tests.distributed.ranks import run_ranks, worked
from tests.helpers import convolutional_network, rich_network
from tests.training.resuming import (
    STEPS,
    X,
    Y,
    assert_close_end,
    assert_same_end,
    kept,
    killed_at,
    options,
    undisturbed,
)


def pieces(epoch):
    """Different rows in every epoch, 11 at a time."""
    order = np.random.default_rng(epoch).permutation(len(X))
    for start in range(0, len(X), 11):
        part = order[start : start + 11]
        yield X[part], Y[part]


#: Before the shorter last step of the first epoch, and in the middle of the second.
@pytest.mark.parametrize("step", [STEPS - 1, STEPS + 5])
def test_a_killed_run_resumes_bit_for_bit(backend, tmp_path, monkeypatch, step):
    expected = undisturbed(backend, [nn.EarlyStopping()], epochs=2)
    killed_at(monkeypatch, step, lambda: kept(tmp_path, backend, [nn.EarlyStopping()], epochs=2))
    assert_same_end(kept(tmp_path, backend, [nn.EarlyStopping()], epochs=2), expected)


@pytest.mark.parametrize("step", [3, STEPS + 5])
def test_a_convolutional_network_with_batch_normalisation_resumes(backend, tmp_path, monkeypatch, step):
    given = {"epochs": 2, "make": convolutional_network}
    expected = undisturbed(backend, **given)
    killed_at(monkeypatch, step, lambda: kept(tmp_path, backend, **given))
    assert_same_end(kept(tmp_path, backend, **given), expected)


@pytest.mark.parametrize(("how", "step"), [("rows", 2), ("stream", STEPS + 4)])
def test_streamed_rows_resume_within_the_epoch(backend, tmp_path, monkeypatch, how, step):
    """Portions of three steps: within the first, and within the second."""
    monkeypatch.setattr("nnbackend.data.streaming._PORTION_BYTES", 3 * 8 * 12)
    data: dict = {"x": X, "y": Y, "stream": True} if how == "rows" else {"x": nn.BatchStream(pieces, len(X)), "y": None}
    data["epochs"] = 2
    expected = undisturbed(backend, **data)
    killed_at(monkeypatch, step, lambda: kept(tmp_path, backend, **data))
    assert_same_end(kept(tmp_path, backend, **data), expected)


def test_checkpoints_know_no_backend(backend, tmp_path, monkeypatch):
    """Padding and layouts of the backends differ; metrics agree as between backends."""
    reference = undisturbed("numpy", epochs=2)[1]
    killed_at(monkeypatch, STEPS + 3, lambda: kept(tmp_path))
    network = rich_network(backend)
    history = network.fit(X, Y, resume=tmp_path, **options(epochs=2))
    np.testing.assert_allclose(np.concatenate(history.step_losses), np.concatenate(reference.step_losses), rtol=1e-4)


def test_two_killed_ranks_with_batch_normalisation_are_resumed(backend, tmp_path, monkeypatch):
    """In the middle of an epoch, the checkpoint of rank 0 holds the running statistics of both ranks."""
    given = {"epochs": 2, "make": convolutional_network}
    expected = worked(run_ranks(2, lambda ranks: undisturbed(backend, communicator=ranks, **given)))

    def run(ranks):
        return kept(tmp_path, backend, communicator=ranks, **given)

    killed_at(monkeypatch, STEPS + 5, lambda: worked(run_ranks(2, run)))
    for ended, wanted in zip(worked(run_ranks(2, run)), expected, strict=True):
        assert_same_end(ended, wanted)


def test_two_killed_ranks_are_resumed_with_any_number(backend, tmp_path, monkeypatch):
    """In the middle of the second epoch, whose losses are from both runs."""
    given = {"dtype": "float64", "epochs": 2}

    def run(ranks, folder=None):
        if folder is None:
            return undisturbed(backend, [nn.EarlyStopping()], communicator=ranks, **given)
        return kept(folder, backend, [nn.EarlyStopping()], communicator=ranks, **given)

    killed_at(monkeypatch, STEPS + 5, lambda: worked(run_ranks(2, lambda ranks: run(ranks, tmp_path / "2"))))
    for size in (1, 3):
        shutil.copytree(tmp_path / "2", tmp_path / str(size))
    expected = worked(run_ranks(2, run))
    for size in (1, 2, 3):
        ended = worked(run_ranks(size, lambda ranks, size=size: run(ranks, tmp_path / str(size))))
        if size == 2:
            assert_same_end(ended[0], expected[0])
            assert_same_end(ended[1], expected[1])
        else:
            for one in ended:
                assert_close_end(one, expected[0], 1e-12)


def test_portions_end_elsewhere_with_another_number_of_ranks(tmp_path, monkeypatch):
    """Of a batch of 8 rows two ranks have 4 each, three have 3, 3 and 2: portions of 2, 2 and 4 steps."""
    monkeypatch.setattr("nnbackend.data.streaming._PORTION_BYTES", 8 * 12)
    given = {"dtype": "float64", "epochs": 2, "stream": True}
    expected = undisturbed(**given)

    def run(ranks):
        return kept(tmp_path, communicator=ranks, **given)

    killed_at(monkeypatch, STEPS + 5, lambda: worked(run_ranks(2, run)))
    for ended in worked(run_ranks(3, run)):
        assert_close_end(ended, expected, 1e-12)
