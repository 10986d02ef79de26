"""The replay: which steps run, in which portions, and the calls of the watch and feed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import Executor
from nnbackend.data.batches import Batches
from nnbackend.data.feed import Resident
from nnbackend.step import replay as replay_module
from nnbackend.step.replay import Replay, Watch


class Noted(Executor):
    """Records the requested numbers of steps and rows."""

    name, reason = "noted", "for tests"

    def __init__(self, rows, runs):
        self.rows, self.runs = rows, runs

    def run(self, repeats):
        self.runs.append((self.rows, repeats))


class Portions(Resident):
    """Rows that are ready three steps at a time."""

    def __init__(self):
        self.asked = []

    def ready(self, step):
        self.asked.append(step)
        return 3 - step % 3


class Spy(Watch):
    def __init__(self, last=sys.maxsize):
        self.last, self.said = last, []

    def allow(self, done, steps):
        self.said.append(("allow", done, steps))
        return min(steps, self.last - done)

    def advanced(self, done):
        self.said.append(("advanced", done))

    def reached(self, done):
        self.said.append(("reached", done))

    def cut(self, done):
        self.said.append(("cut", done))


def replay_of(rows, batch_size, feed=None):
    network = nn.Network([nn.Dense(2)], 3, backend="numpy")
    runs = []
    replay = Replay(network.model, Batches(rows, batch_size), training=True, feed=feed)
    replay.record(lambda piece: Noted(piece.rows, runs))
    return replay, runs


def test_full_batches_and_the_shorter_last_one_have_separate_executors():
    replay, runs = replay_of(23, 5)
    assert [(executor.rows, repeats) for executor, repeats in replay.executors] == [(5, 4), (3, 1)]
    assert replay.run() == 5
    assert runs == [(5, 4), (3, 1)]


def test_an_epoch_resumes_within_any_kind_of_batch():
    for first, expected in ((2, [(5, 2), (3, 1)]), (4, [(3, 1)]), (5, [])):
        replay, runs = replay_of(23, 5)
        assert replay.run(first) == 5
        assert runs == expected


def test_watched_steps_run_in_portions_that_grow_while_they_are_short():
    replay, _ = replay_of(75, 5)
    watch = Spy()
    assert replay.run(watch=watch) == 15
    assert [event for event in watch.said if event[0] == "allow"] == [
        ("allow", 0, 1), ("allow", 1, 2), ("allow", 3, 4), ("allow", 7, 8)
    ]  # fmt: skip
    assert watch.said[:3] == [("allow", 0, 1), ("advanced", 1), ("reached", 1)]


def test_portions_that_take_long_do_not_grow(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(replay_module.time, "perf_counter", lambda: next(clock))
    replay, _ = replay_of(20, 5)
    watch = Spy()
    replay.run(watch=watch)
    assert [event[2] for event in watch.said if event[0] == "allow"] == [1, 1, 1, 1]


def test_a_watch_can_end_an_epoch_early():
    replay, runs = replay_of(75, 5)
    watch = Spy(last=4)
    assert replay.run(watch=watch) == 4
    assert sum(steps for _, steps in runs) == 4
    assert watch.said[-1] == ("cut", 4)


@pytest.mark.parametrize("watch", [None, Spy()])
def test_steps_wait_for_their_rows(watch):
    feed = Portions()
    replay, runs = replay_of(35, 5, feed)
    assert replay.run(watch=watch) == 7
    assert all(first % 3 + steps <= 3 for first, steps in zip(feed.asked, (steps for _, steps in runs), strict=True))


def test_buffers_are_made_when_they_are_asked_for():
    replay, _ = replay_of(23, 5)
    assert not {"order", "rates", "trace", "counter"} & vars(replay).keys()
    replay.count_from(2, network_steps=10, optimizer_steps=7)
    assert replay.counter.tolist() == [2, 12, 9]
    assert replay.order.shape == (23,)
    assert replay.rates.shape == (5,)
    assert replay.trace.shape == (5, 3)
    assert replay.trace.dtype == np.float64
