"""Ctrl-C leaves every network usable."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.numba.backend import NumbaBackend
from tests.helpers import classifier, images, same_weights

X, Y = images(rows=200)
OPTIONS = {"loss": "softmax_cross_entropy", "batch_size": 8}


class Signals(nn.Callback):
    """Sends signals at the end of an epoch."""

    def __init__(self, epoch, times=1):
        self.epoch, self.times = epoch, times

    def on_epoch_end(self, network, epoch, metrics):
        for _ in range(self.times if epoch == self.epoch else 0):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(params=["numpy", "numba"])
def many(request):
    """Eight networks, more than are in progress at a time."""
    backend = nn.get_backend("numpy") if request.param == "numpy" else NumbaBackend(2)
    return [classifier(backend, seed=seed) for seed in range(8)]


def fit(networks, callback, epochs=6):
    callbacks = nn.PerNetwork([[callback], *([] for _ in networks[1:])])
    return nn.fit_many(networks, X, Y, epochs=epochs, callbacks=callbacks, **OPTIONS)


def assert_usable(networks):
    """Each is as after some whole steps, and continues to learn."""
    for network in networks:
        assert all(np.isfinite(weight).all() for weight in network.get_weights().values())
        network.fit(X, Y, epochs=1, **OPTIONS)


def test_ctrl_c_ends_all_networks(many):
    handler = signal.getsignal(signal.SIGINT)
    histories = fit(many, Signals(3), epochs=200)
    assert all(history.interrupted for history in histories)
    assert len(histories[0]) == 3
    assert [history.error for history in histories] == [None] * 8
    # The last ones had not begun.
    assert len(histories[-1]) == 0
    assert same_weights(many[-1], classifier(many[0].backend, seed=7))
    assert signal.getsignal(signal.SIGINT) is handler
    for network, history in zip(many, histories, strict=True):
        assert network.steps_trained == sum(map(len, history.step_losses))
    assert_usable(many)


def test_an_interrupted_network_has_the_bits_of_its_steps(many):
    histories = fit(many, Signals(2), epochs=200)
    for seed, (network, history) in enumerate(zip(many, histories, strict=True)):
        complete = [losses for losses in history.step_losses if len(losses) == 25]
        expected = classifier(many[0].backend, seed=seed)
        if complete and len(complete) == len(history):
            expected.fit(X, Y, epochs=len(complete), **OPTIONS)
            assert same_weights(expected, network)
    assert len(histories[0]) == 2


def test_a_second_ctrl_c_raises(many):
    with pytest.raises(KeyboardInterrupt):
        fit(many, Signals(2, times=2))
    assert_usable(many)


def test_ctrl_c_within_an_epoch(many):
    """All epochs would take minutes."""
    fit(many, Signals(9), epochs=1)
    timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    histories = nn.fit_many(many, X, Y, steps_per_epoch=20_000, shuffle=False, epochs=1000, **OPTIONS)
    timer.join()
    assert all(history.interrupted for history in histories)
    assert 0 < many[0].steps_trained - 25 < 20_000 * 1000
    assert many[0].steps_trained - 25 == sum(map(len, histories[0].step_losses))
    assert_usable(many)


class Leaves(nn.Callback):
    """Ends the program."""

    def on_epoch_end(self, network, epoch, metrics):
        raise SystemExit(3)


def test_an_exception_that_ends_the_program_ends_all_first(many):
    with pytest.raises(SystemExit):
        fit(many, Leaves())
    assert_usable(many)


@pytest.mark.parametrize("method", ["start", "join"])
def test_ctrl_c_while_threads_start_or_end_leaves_none_of_them(method, monkeypatch):
    backend = NumbaBackend(2)
    networks = [classifier(backend, seed=seed) for seed in range(4)]
    original, calls = getattr(threading.Thread, method), []

    def interrupted(thread, *arguments):
        if not thread.name.startswith("nnbackend-many"):
            original(thread, *arguments)
            return
        calls.append(thread)
        if method == "start":
            original(thread, *arguments)
        if len(calls) == (2 if method == "start" else 1):
            raise KeyboardInterrupt
        if method == "join":
            original(thread, *arguments)

    monkeypatch.setattr(threading.Thread, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        nn.fit_many(networks, X, Y, epochs=2, **OPTIONS)
    monkeypatch.undo()
    for thread in calls:
        if method == "start":
            # The one that was interrupted is not known, but ends, too.
            thread.join(10)
        assert not thread.is_alive()
    assert_usable(networks)
