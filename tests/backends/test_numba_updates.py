"""Updates at the end of a compiled step's products, and moments too small for a normal number."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

import nnbackend as nn
from nnbackend.backends.contract import Call
from nnbackend.backends.executor import PlainExecutor
from nnbackend.backends.numba import NumbaBackend, executor, program
from nnbackend.backends.numba.intrinsics import flush_subnormals
from tests.backends.steps import OPTIMIZERS, recorded, trained, x86_only
from tests.helpers import images, same_weights


class Plain(NumbaBackend):
    """The same kernels one by one: a product is stored before it is used."""

    def executor(self, calls):
        return self.plain_executor(calls)


def trained_with(backend, optimizer, penalty, bias, dtype):
    """Weights with more rows than columns, and fewer: threads share them differently."""
    layers = [
        nn.Dense(33, activation="relu", use_bias=bias), nn.Dense(20, activation="tanh", use_bias=bias, **penalty),
        nn.Dense(4, use_bias=bias),
    ]  # fmt: skip
    x, y = images(rows=70)
    net = nn.Network(layers, 12, backend=backend, dtype=dtype, seed=5)
    net.fit(x, y, epochs=2, batch_size=32, loss="softmax_cross_entropy", optimizer=OPTIMIZERS[optimizer]())
    return net


#: Every optimiser with every penalty; either type and a bias or none with each of them, and with each other.
PENALTIES = ({}, {"l1": 1e-3}, {"l2": 1e-3})
UPDATES = [
    pytest.param(name, penalty, i % 3 == j, ("float32", "float64")[(i + j) % 2], id=f"{name}-{''.join(penalty)}")
    for i, name in enumerate(OPTIMIZERS)
    for j, penalty in enumerate(PENALTIES)
]


@pytest.mark.parametrize(("optimizer", "penalty", "bias", "dtype"), UPDATES)
def test_updates_within_products_are_those_after_them(optimizer, penalty, bias, dtype, always_shared):
    apart = trained_with(Plain(threads=1), optimizer, penalty, bias, dtype).get_weights()
    fused = trained_with(NumbaBackend(threads=1), optimizer, penalty, bias, dtype)
    bound = 5e-4 if dtype == "float32" else 1e-9
    for name, weight in fused.get_weights().items():
        np.testing.assert_allclose(weight, apart[name], rtol=bound, atol=bound, err_msg=name)
    for threads in (2, 3, 8):
        assert same_weights(fused, trained_with(NumbaBackend(threads=threads), optimizer, penalty, bias, dtype))


# ---- numbers too small for a normal one ----------------------------------------------------------------------------


@njit
def flushing(flag):
    return flush_subnormals(flag)


def keeps_subnormals():
    return np.float32(1e-38) * np.float32(0.1) != 0


def test_the_caller_s_subnormal_numbers_are_what_they_were(always_shared):
    assert keeps_subnormals()
    for threads in (1, 2):
        trained(NumbaBackend(threads=threads))
        assert keeps_subnormals()


def counting():
    """A program of nothing but a counter."""
    return program.compile_step([Call.of("advance", np.zeros(3, np.int64))], 1)


def test_so_are_those_of_a_thread_that_is_called_off():
    """Here the other thread never comes, and the run is off from the start."""
    table = recorded([nn.Dense(9), nn.Dense(4)], nn.SGD(0.1))
    before, counter = table.counter.copy(), table.counter
    executor._run(table, 1, 1, 2, np.array([0, 1]))
    assert keeps_subnormals()
    np.testing.assert_array_equal(counter, before)


@x86_only
def test_a_thread_that_has_them_flushed_has_so_afterwards():
    assert not flushing(True)
    try:
        executor.Team(1).run(counting(), 1)
    finally:
        afterwards = flushing(False)
    assert afterwards
    assert keeps_subnormals()


@x86_only
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_of_a_unit_that_gets_no_gradient_become_zero(dtype):
    """They would end in a subnormal number that multiplied by 0.9 is rounded to itself."""
    info = np.finfo(dtype)
    x, delta = np.ones((4, 2), dtype), np.ones((4, 3), dtype)
    # The first of the two inputs is never active.
    x[:, 0] = 0
    first, second = np.full((2, 6), 8 * info.tiny, dtype)
    parameters, gradients, counter, steps = np.ones(6, dtype), np.zeros(6, dtype), np.zeros(3, np.int64), 3000
    left = first[0]
    for _ in range(steps):
        left = left * x.dtype.type(0.9)
    assert 0 < left < info.tiny
    arrays = parameters, gradients, first, second, counter, np.full(steps, 1e-3)
    table = program.compile_step([
        Call.of("dense_weight_gradient", x, delta, gradients.reshape(2, 3)),
        Call.of("adam_update", *arrays, 0.9, 0.999, 1e-8, 0.0, False),
        Call.of("advance", counter),
    ], 1)  # fmt: skip
    assert table.operations == ["weight_gradient"]
    executor.Team(1).run(table, steps)
    for moment in (first, second):
        np.testing.assert_array_equal(moment[:3], 0)
        assert (moment[3:] > 1).all()


# ---- updates taken apart ---------------------------------------------------------------------------------------


def recorded_calls(monkeypatch, optimizer):
    """The calls of a training step, and its network."""
    steps = []
    original = NumbaBackend.executor
    monkeypatch.setattr(NumbaBackend, "executor", lambda self, calls: steps.append(calls) or original(self, calls))
    x, y = images(rows=32)
    layers = [nn.Dense(33, activation="relu"), nn.Dense(20, activation="tanh"), nn.Dense(4)]
    net = nn.Network(layers, 12, backend=NumbaBackend(threads=2), dtype="float64", seed=2)
    net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=optimizer)
    (calls,) = (calls for calls in steps if any(call.operation == "bias_gradient" for call in calls))
    return list(calls), net


def weights_after(net, calls, start, run):
    net.restore(start)
    for call in calls:
        if call.operation == "sgd_update":
            call.gradients[:] = 0
            call.velocity[:] = 0
        if call.operation == "advance":
            call.counter[:] = 0
    run(calls)
    return net.get_weights()


@pytest.mark.parametrize(
    "change",
    [
        "the first gradient is not computed",
        "the last gradient is not computed",
        "weights are needed after their gradient",
    ],
)
def test_an_update_is_taken_apart_only_where_that_changes_nothing(change, monkeypatch, always_shared):
    """Layers from outside may record the contract's operations in any order, and leave some out."""
    calls, net = recorded_calls(monkeypatch, nn.SGD(0.1, momentum=0.9, weight_decay=0.1))
    operations = [call.operation for call in calls]
    if "not computed" in change:
        # Backwards: the last layer's gradients, which lie at the end of the buffer, come first.
        places = [place for place, name in enumerate(operations) if name.endswith(("weight_gradient", "bias_gradient"))]
        ends = [calls[place].out.ctypes.data for place in places]
        del calls[places[int(np.argmax(ends) if "last" in change else np.argmin(ends))]]
    else:
        needed = calls.pop(operations.index("dense_input_gradient"))
        assert calls[operations.index("dense_input_gradient")].operation == "dense_weight_gradient"
        calls.insert(operations.index("dense_input_gradient") + 1, needed)
    start = net.snapshot()

    def compiled(calls):
        executor.Team(2).run(program.compile_step(calls, 2), 1)

    def plain(calls):
        PlainExecutor(net.backend, calls).run(1)

    expected = weights_after(net, calls, start, plain)
    weights = weights_after(net, calls, start, compiled)
    for name, value in weights.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12, atol=1e-14, err_msg=name)
