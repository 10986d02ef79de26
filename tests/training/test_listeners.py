"""Listeners of a run: notified in order, exited in reverse, and asked together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.training import fit as fit_function
from nnbackend.training.callbacks.stopping import Best
from nnbackend.training.listeners import Listener, Listeners
from tests.helpers import classifier, images

EVENTS = ("epoch_begin", "steps_end", "epoch_end", "save_point", "epochs_end", "advanced", "reached", "cut")


class Spy(Listener):
    def __init__(self, name, said, most=100, fails=False):
        self._name, self._said, self._most, self._fails = name, said, most, fails

    def __enter__(self):
        if self._fails:
            raise OSError("cannot listen")
        self._said.append((self._name, "enter"))
        return self

    def __exit__(self, kind, error, trace):
        self._said.append((self._name, "exit"))

    def allow(self, done, steps):
        return min(self._most, steps)


def _told(event):
    def tell(self, *arguments):
        self._said.append((self._name, event, *arguments))

    return tell


for _event in EVENTS:
    setattr(Spy, _event, _told(_event))


@pytest.mark.parametrize("event", EVENTS)
def test_all_listeners_are_notified_in_order(event):
    said = []
    arguments = {"steps_end": (1, None), "epoch_end": (1, None, {})}.get(event, (3,))
    getattr(Listeners([Spy("a", said), Spy("b", said)]), event)(*arguments)
    assert said == [("a", event, *arguments), ("b", event, *arguments)]


def test_the_smallest_limit_decides_the_number_of_steps():
    assert Listeners([Spy("a", []), Spy("b", [], most=4), Spy("c", [], most=7)]).allow(0, 9) == 4
    assert Listeners([Spy("a", [], most=0), Spy("b", [], most=4)]).allow(0, 9) == 0


def test_listeners_are_exited_in_reverse_also_if_one_cannot_be_entered():
    said = []
    with Listeners([Spy("a", said), Spy("b", said)]):
        pass
    assert said == [("a", "enter"), ("b", "enter"), ("b", "exit"), ("a", "exit")]
    said.clear()
    with pytest.raises(OSError, match="cannot listen"), Listeners([Spy("a", said), Spy("b", said, fails=True)]):
        pass
    assert said == [("a", "enter"), ("a", "exit")]


def test_the_order_in_which_callbacks_are_called():
    said = []

    class Noting(nn.Callback):
        def __init__(self, name):
            self.name = name

        def on_train_begin(self, network, epochs):
            said.append((self.name, "train begin"))

        def on_epoch_begin(self, network, epoch):
            said.append((self.name, "epoch begin"))

        def on_steps_end(self, network, epoch, losses):
            said.append((self.name, "steps end"))

        def on_epoch_end(self, network, epoch, metrics):
            said.append((self.name, "epoch end"))

        def on_train_end(self, network, history):
            said.append((self.name, "train end"))

    x, y = images()
    fit_function(
        classifier(), x, y, epochs=1, loss="softmax_cross_entropy", callbacks=[Noting("a"), Noting("b")], verbose=False
    )
    whens = ("train begin", "epoch begin", "steps end", "epoch end", "train end")
    assert said == [(name, when) for when in whens for name in "ab"]


def test_callbacks_that_were_pickled_when_they_were_one_file_still_load():
    """A pickle contains the old module name of a class."""
    for name, kind in (("EarlyStopping", nn.EarlyStopping), ("KeepBest", nn.KeepBest), ("_Best", Best)):
        assert pickle.loads(b"cnnbackend.training.callbacks\n" + name.encode() + b"\n.") is kind
    again = pickle.loads(pickle.dumps(nn.EarlyStopping("loss", patience=7)))
    assert (again.patience, np.isnan(again.best_value)) == (7, True)
