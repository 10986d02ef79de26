"""A training that is broken off before it has taken a step leaves the network as it was."""

from __future__ import annotations

import itertools
import signal
from contextlib import nullcontext as does_not_raise

import numpy as np
import pytest

import nnbackend as nn
from tests.helpers import classifier, images

X, Y = images(rows=64)
OPTIONS = {"batch_size": 16, "loss": "softmax_cross_entropy"}


@pytest.mark.parametrize("how", ["callback", "layer", "ctrl-c"])
def test_a_training_without_a_step_decides_nothing(how, backend):
    class Failing(nn.Callback):
        def on_epoch_begin(self, network, epoch):
            if how == "callback":
                raise KeyboardInterrupt
            if how == "ctrl-c":
                signal.raise_signal(signal.SIGINT)

    class Broken(nn.Layer):
        def forward(self, step, x):
            if step.training and how == "layer":
                step.call(self.interrupt)
            return x, None

        def interrupt(self, backend):
            # The first step has changed the weights.
            if next(steps) == 2:
                raise KeyboardInterrupt

        def backward(self, step, saved, upstream, need_input_gradient):
            return upstream

    steps = itertools.count(1)
    net = nn.Network([Broken(), nn.Flatten(), nn.Dense(4)], (3, 4), backend=backend)
    before, predicted = net.get_weights(), net.predict(np.ones((2, 3, 4)))
    x = X.reshape(-1, 3, 4)
    options = {**OPTIONS, "loss": "mean_squared_error", "optimizer": "sgd"}
    with does_not_raise() if how == "ctrl-c" else pytest.raises(KeyboardInterrupt):
        net.fit(x, Y, epochs=3, callbacks=[Failing()], **options)
    assert (net.input_scale, net.loss, net.optimizer, net.input_description) == (None, None, None, None)
    assert not net.multilabel
    assert net.steps_trained == 0
    assert all(np.array_equal(before[name], array) for name, array in net.get_weights().items())
    np.testing.assert_array_equal(net.predict(np.ones((2, 3, 4))), predicted)
    # Other data may decide.
    how = "trains"
    net.fit(x / 255, Y, epochs=1, **options)
    assert net.input_scale == 1


def test_an_error_in_a_later_training_keeps_the_decisions_of_the_first():
    class Failing(nn.Callback):
        def on_epoch_begin(self, network, epoch):
            raise RuntimeError

    net = classifier()
    net.fit(X, Y, epochs=1, **OPTIONS)
    kept = net.loss, net.input_scale, net.input_description, net.optimizer
    with pytest.raises(RuntimeError):
        net.fit(X, Y, epochs=1, **{**OPTIONS, "loss": "mean_squared_error", "optimizer": "sgd"}, callbacks=[Failing()])
    assert kept == (net.loss, net.input_scale, net.input_description, net.optimizer)
