"""Steps of which only a part is compiled: functions from outside, and padded rows."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import Call
from nnbackend.backends.numba import NumbaBackend
from tests.backends.steps import OPTIMIZERS, ThroughTheTable
from tests.helpers import images, same_weights


class Custom(nn.Layer):
    """Twice its input, with functions from outside both ways."""

    def forward(self, step, x):
        out = step.buffer(x.shape[1])
        step.call(double, x, out)
        return out, None

    def backward(self, step, saved, upstream, need_input_gradient):
        out = step.buffer(upstream.shape[1])
        step.call(double, upstream, out)
        return out


def double(backend, x, out):
    np.multiply(x, 2, out=out)


def custom_network(backend):
    layers = [nn.Dense(9, activation="relu"), Custom(), nn.Dropout(0.2), nn.Dense(7, activation="tanh"), nn.Dense(4)]
    return nn.Network(layers, 12, backend=backend, seed=3)


def test_a_function_from_outside_costs_only_itself_and_the_summary_and_the_log_say_so(caplog):
    x, y = images(rows=20)
    net = custom_network("numba")
    with caplog.at_level("INFO", logger="nnbackend"):
        assert np.isfinite(net.fit(x, y, epochs=2, loss="softmax_cross_entropy")["loss"]).all()
    (message,) = (record.getMessage() for record in caplog.records if "executor" in record.getMessage())
    name, reason = "compiled, 2 of 23 calls from Python", "double is a user-defined function"
    assert message.endswith(f"with the {name} executor: {reason}")
    for network in (net, custom_network("numba")):
        assert network.summary().splitlines()[-1].endswith(f"; executor {name}: {reason}")


def test_a_step_of_functions_from_outside_is_plain():
    called = []
    executor = NumbaBackend(threads=1).executor([Call.custom(lambda backend, value: called.append(value), 7)])
    assert (executor.name, executor.reason) == ("plain", "<lambda> is a user-defined function")
    executor.run(3)
    assert called == [7] * 3


class OneByOne(ThroughTheTable):
    """Every operation is a program of its own; gradients are stored before they are used."""

    def executor(self, calls):
        return self.plain_executor(calls)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_segments_have_the_bits_of_single_calls(optimizer, always_shared):
    x, y = images(rows=70)
    nets = []
    for backend in (OneByOne(threads=1), NumbaBackend(threads=1), NumbaBackend(threads=2)):
        net = custom_network(backend)
        net.fit(x, y, epochs=3, batch_size=16, loss="softmax_cross_entropy", optimizer=OPTIMIZERS[optimizer]())
        nets.append(net)
    assert same_weights(nets[0], nets[1])
    assert same_weights(nets[0], nets[2])


def test_only_the_last_segment_advances_the_counter():
    x, out, counter = np.ones((4, 3)), np.zeros((4, 3)), np.array([2, 5, 5])
    places = []
    calls = [
        Call.of("dropout", x, 0.5, 1, 0, counter, out),
        Call.custom(lambda backend, counter: places.append(counter.tolist()), counter),
        Call.of("dropout", out, 0.5, 1, 0, counter, out),
        Call.of("advance", counter),
    ]
    executor = NumbaBackend(threads=1).executor(calls)
    assert executor.name == "compiled, 1 of 4 calls from Python"
    executor.run(3)
    assert places == [[2, 5, 5], [3, 6, 6], [4, 7, 7]]
    np.testing.assert_array_equal(counter, [5, 8, 8])


def test_a_gradient_that_a_function_from_outside_is_given_is_stored():
    """It would otherwise go to its parameters in registers."""
    x, delta = np.ones((4, 2)), np.full((4, 3), 0.5)
    parameters, gradients, counter, rates = np.zeros(6), np.zeros(6), np.zeros(3, np.int64), np.ones(9)
    seen = []
    calls = [
        Call.custom(lambda backend, gradient: seen.append(gradient.copy()), gradients),
        Call.of("dense_weight_gradient", x, delta, gradients.reshape(2, 3)),
        Call.of("sgd_update", parameters, gradients, None, counter, rates, 0.0, False, 0.0),
        Call.of("advance", counter),
    ]
    NumbaBackend(threads=1).executor(calls).run(2)
    np.testing.assert_array_equal(seen, [[0] * 6, [2] * 6])
    np.testing.assert_array_equal(parameters, -4)


class Sum(nn.Layer):
    """``x @ one + x @ other``, where a function from outside comes between the gradients."""

    def output_shape(self, input_shape):
        return (5,)

    def parameters(self, input_shape):
        return tuple(nn.Parameter(name, (*input_shape, 5), nn.HeNormal()) for name in ("one", "other"))

    def forward(self, step, x):
        one, other = step.buffer(5), step.buffer(5)
        for name, out in (("one", one), ("other", other)):
            step.record("dense_forward", x, step.parameter(name), None, "identity", 0.0, None, out)
        step.record("add", one, other, one)
        return one, x

    def backward(self, step, saved, upstream, need_input_gradient):
        delta = step.buffer(5)
        step.record("dense_weight_gradient", saved, upstream, step.gradient("one"))
        step.call(double, upstream, delta)
        step.record("dense_weight_gradient", saved, delta, step.gradient("other"))


def test_segments_read_the_batch_that_another_segment_has_gathered(always_shared):
    """Even where each thread could have its own copy of it."""
    x, y = images(rows=30)
    nets = [nn.Network([Sum(), nn.Dense(4)], 12, NumbaBackend(threads=threads), seed=3) for threads in (1, 2)]
    for net in nets:
        net.fit(x, y, epochs=2, batch_size=8, loss="softmax_cross_entropy")
    assert same_weights(*nets)


def test_padded_rows_cost_only_the_calls_that_use_them():
    class Padded(NumbaBackend):
        row_multiple = 16

    x, y = images(rows=40)
    nets = []
    for backend in (Padded(threads=1), NumbaBackend(threads=1)):
        net = nn.Network(
            [nn.Dense(16, activation="relu"), nn.Dense(32), nn.Dense(16)],
            16,
            backend=backend,
            seed=1,
            input_scale=1 / 255,
        )
        nets.append(net)
        net.fit(np.resize(x, (40, 16)), y % 4, epochs=2, loss="softmax_cross_entropy")
    # Every width is a multiple of 16.
    assert ["executor compiled: every" in net.summary() for net in nets] == [True, True]
    assert same_weights(*nets)
    partly = nn.Network([nn.Dense(16, activation="relu"), nn.Dense(16), nn.Dense(5)], 16, backend=Padded(threads=1))
    name, reason = partly.summary().splitlines()[-1].partition("executor ")[2].split(": ")
    assert name.startswith("compiled, ")
    assert name.endswith(" calls from Python")
    assert reason == "rows of arrays are padded"
