"""A run that is killed and resumed ends with the bits of one that was not, wherever its rows are."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from tests.helpers import rich_network
from tests.ranks import run_ranks, worked
from tests.resuming import STEPS, X, Y, assert_close_end, assert_same_end, kept, killed_at, options, undisturbed


def pieces(epoch):
    """Rows that are others in every epoch, 11 at a time."""
    order = np.random.default_rng(epoch).permutation(len(X))
    for start in range(0, len(X), 11):
        part = order[start : start + 11]
        yield X[part], Y[part]


#: Before the first epoch's last and shorter step, and in the middle of the second.
@pytest.mark.parametrize("step", [STEPS - 1, STEPS + 5])
def test_a_killed_run_goes_on_with_the_same_bits(backend, tmp_path, monkeypatch, step):
    expected = undisturbed(backend, [nn.EarlyStopping()], epochs=2)
    killed_at(monkeypatch, step, lambda: kept(tmp_path, backend, [nn.EarlyStopping()], epochs=2))
    assert_same_end(kept(tmp_path, backend, [nn.EarlyStopping()], epochs=2), expected)


@pytest.mark.parametrize(("how", "step"), [("rows", 2), ("stream", STEPS + 4)])
def test_rows_on_their_way_go_on_within_the_epoch(backend, tmp_path, monkeypatch, how, step):
    """Portions of three steps: within the first, and within the second."""
    monkeypatch.setattr("nnbackend.streaming._PORTION_BYTES", 3 * 8 * 12)
    data: dict = {"x": X, "y": Y, "stream": True} if how == "rows" else {"x": nn.BatchStream(pieces, len(X)), "y": None}
    data["epochs"] = 2
    expected = undisturbed(backend, **data)
    killed_at(monkeypatch, step, lambda: kept(tmp_path, backend, **data))
    assert_same_end(kept(tmp_path, backend, **data), expected)


def test_checkpoints_know_no_backend(backend, tmp_path, monkeypatch):
    """Padded rows and places of their own stay behind; figures agree as they do between backends."""
    reference = undisturbed("numpy", epochs=2)[1]
    killed_at(monkeypatch, STEPS + 3, lambda: kept(tmp_path))
    network = rich_network(backend)
    history = network.fit(X, Y, resume=tmp_path, **options(epochs=2))
    np.testing.assert_allclose(np.concatenate(history.step_losses), np.concatenate(reference.step_losses), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_two_ranks_are_killed_and_any_number_goes_on(backend, tmp_path, monkeypatch, size):
    """In the middle of the second epoch. The losses of that epoch are those of both runs."""
    given = {"dtype": "float64", "epochs": 2}

    def keep(ranks):
        return kept(tmp_path, backend, [nn.EarlyStopping()], communicator=ranks, **given)

    def whole(ranks):
        return undisturbed(backend, [nn.EarlyStopping()], communicator=ranks, **given)

    expected = worked(run_ranks(2 if size == 2 else 1, whole))
    killed_at(monkeypatch, STEPS + 5, lambda: worked(run_ranks(2, keep)))
    for rank, ended in enumerate(worked(run_ranks(size, keep))):
        if size == 2:
            assert_same_end(ended, expected[rank])
        else:
            assert_close_end(ended, expected[0], 1e-12)
