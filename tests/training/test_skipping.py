"""Steps that would break the network are skipped and counted, and have no effect on the others."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import TrainingDivergedError, UnknownNameError
from tests.distributed.ranks import run_ranks, worked
from tests.helpers import images, same_weights
from tests.training.resuming import assert_close_end, assert_same_end, killed_at

X, Y = images(rows=64)
X = X.astype(np.float32) / 255
#: 8 steps per epoch, in the order of the rows.
OPTIONS = {"batch_size": 8, "loss": "mean_squared_error", "shuffle": False, "verbose": False}
TARGETS = np.eye(4)[Y]


def network(backend):
    return nn.Network([nn.Dense(6, activation="relu"), nn.Dense(4)], 12, backend=backend, seed=2)


def with_broken(*rows):
    """Rows so large that, in float32, their loss is infinite."""
    x = X.copy()
    x[list(rows)] = 1e30
    return x


def test_a_broken_step_has_no_effect(backend):
    """In the middle of an epoch, twice in succession, and the last step; the optimiser does not count them."""
    x = with_broken(8 * 2 + 3, 8 * 5, 8 * 6 + 7, 63)
    broken = [2, 5, 6, 7]
    left = np.concatenate([np.arange(8 * step, 8 * step + 8) for step in range(8) if step not in broken])
    skipping, without = network(backend), network(backend)
    history = skipping.fit(x, TARGETS, optimizer=nn.Adam(0.01), epochs=2, on_nan="skip", **OPTIONS)
    expected = without.fit(x[left], TARGETS[left], optimizer=nn.Adam(0.01), epochs=2, **OPTIONS)
    assert same_weights(skipping, without)
    assert history["skipped"] == [4, 4]
    for losses, sound in zip(history.step_losses, expected.step_losses, strict=True):
        assert np.flatnonzero(np.isnan(losses)).tolist() == broken
        np.testing.assert_array_equal(losses[~np.isnan(losses)], sound)
    assert history["loss"] == pytest.approx(expected["loss"])
    assert skipping.steps_trained == 16
    assert skipping.optimizer_state.steps == without.optimizer_state.steps == 8


# ---- on one backend --------------------------------------------------------------------------------------------------


def test_a_good_run_is_the_same_with_both_modes():
    runs = []
    for rule in ("stop", "skip"):
        net = network("numpy")
        runs.append((net, net.fit(X, TARGETS, optimizer="sgd", epochs=3, on_nan=rule, **OPTIONS)))
    assert runs[1][1]["skipped"] == [0, 0, 0]
    del runs[1][1].epochs[0]["skipped"], runs[1][1].epochs[1]["skipped"], runs[1][1].epochs[2]["skipped"]
    assert_same_end(runs[1], runs[0])


def test_a_step_that_breaks_weights_but_not_the_loss():
    """The loss and the gradients of 1e15 are finite, but not their squares, and a weight whose mean square is infinite
    would never move again."""
    x = X.copy()
    x[32] = 1e15
    left = np.r_[:32, 40:64]
    skipping, without = network("numpy"), network("numpy")
    history = skipping.fit(x, TARGETS, optimizer=nn.RMSprop(0.01), epochs=1, on_nan="skip", **OPTIONS)
    without.fit(x[left], TARGETS[left], optimizer=nn.RMSprop(0.01), epochs=1, **OPTIONS)
    assert history["skipped"] == [1]
    assert same_weights(skipping, without)


def test_on_nan_is_stop_by_default():
    net = network("numpy")
    with pytest.raises(TrainingDivergedError, match="in epoch 1, step 3 of 8"):
        net.fit(with_broken(16), TARGETS, epochs=1, **OPTIONS)
    with pytest.raises(UnknownNameError, match="unknown on_nan 'ignore'"):
        net.fit(X, TARGETS, epochs=1, on_nan="ignore", **OPTIONS)


def test_an_epoch_with_only_skipped_steps_ends_the_run():
    net = network("numpy")
    with pytest.raises(TrainingDivergedError):
        net.fit(with_broken(*range(64)), TARGETS, epochs=1, on_nan="skip", **OPTIONS)


def test_a_killed_run_remembers_its_skipped_steps(tmp_path, monkeypatch):
    def run(**more):
        net = network("numpy")
        more = {"optimizer": nn.Adam(0.01), "epochs": 2, "on_nan": "skip", **OPTIONS, **more}
        return net, net.fit(with_broken(19, 41), TARGETS, **more)

    expected = run()
    killed_at(monkeypatch, 4, lambda: run(callbacks=[nn.Checkpoint(tmp_path, every_steps=1)]))
    assert_same_end(run(resume=tmp_path), expected)


def test_ranks_leave_out_the_same_steps(monkeypatch):
    """With the broken row on one rank, also in a batch in which the others have no rows; rows are streamed in portions,
    which end at different steps on each rank."""
    monkeypatch.setattr("nnbackend.data.streaming._PORTION_BYTES", 2 * 3 * 12 * 4)

    def run(ranks):
        net = network("numpy")
        given = {"optimizer": nn.Adam(0.01), "epochs": 2, "on_nan": "skip", **OPTIONS}
        x = with_broken(16, 47, 56)[:57]
        return net, net.fit(x, TARGETS[:57], stream=ranks is not None, communicator=ranks, **given)

    alone = run(None)
    assert alone[1]["skipped"] == [3, 3]
    for ended in worked(run_ranks(3, run)):
        assert [np.flatnonzero(np.isnan(losses)).tolist() for losses in ended[1].step_losses] == [[2, 5, 7]] * 2
        assert_close_end(ended, alone, 1e-5)
