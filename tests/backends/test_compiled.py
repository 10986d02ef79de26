"""The compiled executor of the Numba backend: every operation, any number of threads, and what it leaves to Python."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.base import OPERATIONS, Call
from nnbackend.backends.numba import NumbaBackend, executor, operations, program
from nnbackend.testing import check_backend
from tests.helpers import images, same_weights

MEMORY = ("empty", "from_host", "write", "to_host", "copy", "synchronize", "advance")


class ThroughTheTable(NumbaBackend):
    """Every operation is a program of one line."""

    refused = 0


def _through(name):
    @functools.wraps(getattr(NumbaBackend, name))
    def operation(self, *arguments):
        try:
            compiled = program.compile_step([Call(name, arguments)], 2)
        except program.UnsupportedStepError:
            type(self).refused += 1
            getattr(NumbaBackend, name)(self, *arguments)
        else:
            self._team.run(compiled, 1)

    return operation


for _name in OPERATIONS:
    if _name not in MEMORY:
        setattr(ThroughTheTable, _name, _through(_name))


@pytest.fixture(params=["rows", "columns"])
def always_shared(request, monkeypatch):
    """However little there is to do, all threads take part."""
    if request.param == "columns":
        monkeypatch.setattr(program, "_FEW_ROWS", 10**9)
        monkeypatch.setattr(program, "_MANY_COLUMNS", 1)
        monkeypatch.setattr(program, "_MUCH_WORK", 0)
    monkeypatch.setattr(executor, "_SHARED_STEP", 0)
    monkeypatch.setattr(executor, "_SHARED_RUN", 0)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_operation_does_what_the_contract_says(threads, always_shared):
    ThroughTheTable.refused = 0
    check_backend(ThroughTheTable(threads=threads))
    assert ThroughTheTable.refused == 0


def network(backend, dtype="float32"):
    layers = [
        nn.Dense(33, activation="gelu", l2=1e-3), nn.Dropout(0.3), nn.Dense(17, activation="relu"), nn.MaxAbsNorm(),
        nn.Activation("tanh"), nn.Dense(4, l1=1e-3),
    ]  # fmt: skip
    return nn.Network(layers, 12, backend=backend, dtype=dtype, seed=5)


OPTIMIZERS = {
    "sgd": lambda: nn.SGD(0.1, weight_decay=1e-3), "nesterov": lambda: nn.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: nn.Adam(0.01), "adamw": lambda: nn.AdamW(0.01), "rmsprop": lambda: nn.RMSprop(0.01),
}  # fmt: skip


def trained(backend, optimizer="adam", dtype="float32", loss="softmax_cross_entropy"):
    x, y = images(rows=70)
    net = network(backend, dtype)
    history = net.fit(
        x, y, epochs=3, batch_size=16, loss=loss, optimizer=OPTIMIZERS[optimizer](), validation_data=(x, y),
        sample_weight=np.linspace(0.5, 1.5, 70),
    )  # fmt: skip
    return net, history


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_do_not_depend_on_the_number_of_threads(optimizer, dtype, always_shared):
    alone, history = trained(NumbaBackend(threads=1), optimizer, dtype)
    for threads in (2, 3, 8):
        together, other = trained(NumbaBackend(threads=threads), optimizer, dtype)
        assert same_weights(alone, together), threads
        assert history["val_loss"] == other["val_loss"]
        np.testing.assert_array_equal(np.concatenate(history.step_losses), np.concatenate(other.step_losses))


def test_layers_of_the_same_width_wait_for_each_other(always_shared):
    """They are cut in the same places, but each needs all of the one before."""
    x, y = images(rows=60)
    nets = []
    for threads in (1, 2, 3):
        layers = [nn.Dense(150, activation="tanh"), nn.Dense(150, activation="tanh"), nn.Dense(150), nn.Dense(4)]
        net = nn.Network(layers, 12, backend=NumbaBackend(threads=threads), seed=1)
        net.fit(x, y, epochs=20, batch_size=20, loss="softmax_cross_entropy", optimizer=nn.Adam(1e-3))
        nets.append(net)
    assert same_weights(nets[0], nets[1])
    assert same_weights(nets[0], nets[2])


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_agrees_with_the_reference(loss, optimizer):
    compiled, history = trained(NumbaBackend(), optimizer, "float64", loss)
    reference, expected = trained("numpy", optimizer, "float64", loss)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-9)
    np.testing.assert_allclose(history["val_loss"], expected["val_loss"], rtol=1e-9)
    for name, weight in reference.get_weights().items():
        np.testing.assert_allclose(compiled.get_weights()[name], weight, rtol=1e-6, atol=1e-9, err_msg=name)


def recorded(layers, optimizer=None, **options):
    """The program of a training step."""
    x, y = images(rows=32)
    net = nn.Network(layers, 12, backend="numba", **options)
    net.train_on_batch(x, y, loss="softmax_cross_entropy", optimizer=optimizer)
    return net.batch_step._executor._program


def test_threads_wait_for_each_other_twice_a_step():
    """Rows, then gradients with their updates: more waits would be slower, fewer wrong."""
    layers = [nn.Dense(9, activation="relu"), nn.Dense(7, activation="tanh"), nn.Dense(4)]
    table = recorded(layers, nn.Adam())
    waits = list(np.flatnonzero(table.integers[:, program.WAIT]))
    first_gradient = table.operations.index("weight_gradient")
    assert set(table.operations[first_gradient:]) == {"weight_gradient", "bias_gradient", "record_loss"}
    assert waits == [0, first_gradient]


def test_a_penalty_keeps_its_weights_update_apart():
    """The others go on without."""
    table = recorded([nn.Dense(9, activation="relu", l2=0.1), nn.Dense(4)], nn.SGD(0.1))
    assert table.operations.count("update_parameters") == 1
    waits = [table.operations[line] for line in np.flatnonzero(table.integers[:, program.WAIT])]
    assert waits == ["gather_bytes", "weight_gradient", "weight_penalty", "update_parameters"]


class Custom(nn.Layer):
    def forward(self, step, x):
        out = step.buffer(x.shape[1])
        step.call(double, x, out)
        return out, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream


def double(backend, x, out):
    np.multiply(x, 2, out=out)


def test_a_function_from_outside_runs_in_the_plain_loop_and_says_so():
    net = nn.Network([nn.Dense(3), Custom(), nn.Dense(4)], 12, backend="numba")
    assert net.summary().splitlines()[-1].endswith("executor plain: the step holds a function from outside")
    x, y = images(rows=20)
    assert np.isfinite(net.fit(x, y, epochs=2, loss="softmax_cross_entropy")["loss"]).all()


def test_summary_says_that_it_is_compiled():
    net = network("numba")
    assert "executor compiled: every operation of the step is known" in net.summary()


def test_several_networks_train_at_once(always_shared):
    """One gets the team, the others work alone meanwhile, and all get what they would get alone."""
    backend = NumbaBackend(threads=3)
    expected, _ = trained(backend)
    results = []
    threads = [threading.Thread(target=lambda: results.append(trained(backend)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == 4
    assert all(same_weights(net, expected) for net in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(always_shared):
    backend = NumbaBackend(threads=2)
    expected, _ = trained(backend)

    def child(queue):
        queue.put(same_weights(trained(backend)[0], expected))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=60)
    process.join(timeout=60)


def test_if_the_caller_is_stopped_the_others_do_not_wait_for_ever(always_shared, monkeypatch):
    backend = NumbaBackend(threads=3)
    expected, _ = trained(backend)
    original = executor._run

    def stopped(chosen, steps, thread, threads, meeting):
        if thread == 0:
            raise KeyboardInterrupt
        original(chosen, steps, thread, threads, meeting)

    with monkeypatch.context() as patch:
        patch.setattr(executor, "_run", stopped)
        with pytest.raises(KeyboardInterrupt):
            trained(backend)
    again, _ = trained(backend)
    assert same_weights(again, expected)


def test_steps_of_nothing_do_nothing():
    counter = np.array([3, 4, 5])
    empty = program.compile_step([Call("advance", (counter,))], 1)
    executor.Team(1).run(empty, 2)
    np.testing.assert_array_equal(counter, [5, 6, 7])
    state = np.array([0, 0, 0, 1, 3])
    assert operations.share(10, state.ctypes.data) == (3, 6)
