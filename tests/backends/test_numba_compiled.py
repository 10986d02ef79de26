"""The compiled executor of the Numba backend: every operation, any number of threads, and what it leaves to Python."""

from __future__ import annotations

import multiprocessing
import os
import threading
from functools import partial

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.contract import Call
from nnbackend.backends.numba import NumbaBackend, executor, kinds, program
from nnbackend.testing import check_backend
from tests.backends.steps import OPTIMIZERS, ThroughTheTable, network, recorded, trained
from tests.helpers import images, same_weights


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_every_operation_does_what_the_contract_says(threads, always_shared):
    ThroughTheTable.refused = 0
    check_backend(ThroughTheTable(threads=threads))
    assert ThroughTheTable.refused == 0


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_do_not_depend_on_the_number_of_threads(optimizer, dtype, always_shared):
    alone, history = trained(NumbaBackend(threads=1), optimizer, dtype)
    # More threads than free cores wait for their turns, for seconds: one optimiser is enough.
    for threads in (2, 3, 8) if (optimizer, dtype) == ("adam", "float32") else (2,):
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


class Thirds(nn.Layer):
    """The same product of each third of the features, which it reads as rows."""

    def output_shape(self, input_shape):
        return (6,)

    def parameters(self, input_shape):
        return (nn.Parameter("weight", (input_shape[0] // 3, 2), nn.HeNormal()),)

    def forward(self, step, x):
        thirds, out = x.reshape(-1, x.shape[1] // 3), step.buffer(6)
        weight = step.parameter("weight")
        step.record("dense_forward", thirds, weight, None, "identity", 0.0, None, out.reshape(-1, 2))
        return out, (thirds,)

    def backward(self, step, saved, upstream, need_input_gradient):
        step.record("dense_weight_gradient", *saved, upstream.reshape(-1, 2), step.gradient("weight"))


@pytest.mark.parametrize(
    ("first", "dtype", "copied"),
    [
        ([], np.uint8, True),
        ([], np.float32, True),
        ([partial(nn.Dropout, 0.2)], np.float32, False),
        ([Thirds], np.float32, False),
    ],
    ids=["bytes", "floats", "dropout", "other rows"],
)
def test_threads_have_copies_of_batches_that_only_products_read(first, dtype, copied, monkeypatch):
    monkeypatch.setattr(executor, "_SHARED_STEP", 0)
    monkeypatch.setattr(executor, "_SHARED_RUN", 0)
    found = []
    original = program.copy_inputs
    monkeypatch.setattr(program, "copy_inputs", lambda *given: found.append(original(*given)) or found[-1])
    x, y = images(rows=60)
    nets = []
    for threads in (1, 2, 3):
        found.clear()
        layers = [*(make() for make in first), nn.Dense(15, activation="tanh"), nn.Dense(4)]
        net = nn.Network(layers, 12, backend=NumbaBackend(threads=threads), seed=1)
        net.fit(x.astype(dtype), y, epochs=3, batch_size=20, loss="softmax_cross_entropy", optimizer=nn.Adam(1e-3))
        # 20 rows of 12 floats, for each thread.
        expected = {threads * 20 * 12 * 4} if copied and threads > 1 else set()
        assert {len(memory) for memories in found for memory in memories} == expected
        nets.append(net)
    assert same_weights(nets[0], nets[1])
    assert same_weights(nets[0], nets[2])


@pytest.mark.float64
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_agrees_with_the_reference(loss, optimizer):
    compiled, history = trained(NumbaBackend(), optimizer, "float64", loss)
    reference, expected = trained("numpy", optimizer, "float64", loss)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-9)
    np.testing.assert_allclose(history["val_loss"], expected["val_loss"], rtol=1e-9)
    for name, weight in reference.get_weights().items():
        np.testing.assert_allclose(compiled.get_weights()[name], weight, rtol=1e-6, atol=1e-9, err_msg=name)


def test_threads_wait_for_each_other_twice_a_step():
    """Rows, then gradients with their updates: more waits would be slower, fewer wrong."""
    layers = [nn.Dense(9, activation="relu"), nn.Dense(7, activation="tanh"), nn.Dense(4)]
    table = recorded(layers, nn.Adam())
    waits = list(np.flatnonzero(table.table[:, program.WAIT]))
    first_gradient = table.operations.index("weight_gradient")
    assert set(table.operations[first_gradient:]) == {"weight_gradient", "bias_gradient", "record_loss"}
    assert waits == [0, first_gradient]


def test_a_penalty_keeps_its_weights_update_apart():
    """The others go on without."""
    table = recorded([nn.Dense(9, activation="relu", l2=0.1), nn.Dense(4)], nn.SGD(0.1))
    assert table.operations.count("update_parameters") == 1
    waits = [table.operations[line] for line in np.flatnonzero(table.table[:, program.WAIT])]
    assert waits == ["gather_bytes", "weight_gradient", "weight_penalty", "update_parameters"]


def test_summary_says_that_it_is_compiled():
    net = network("numba")
    assert "executor compiled: every operation of the step is known" in net.summary()


def test_several_networks_train_at_once(always_shared):
    """One uses the team while the others work alone; all results are those of a single thread."""
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


def test_a_long_run_comes_back_to_python_between_its_pieces(monkeypatch):
    """So that Ctrl-C is heard."""
    expected, _ = trained(NumbaBackend(threads=1))
    pieces = []
    run = executor.Team.run
    monkeypatch.setattr(
        executor.Team, "run", lambda team, program, steps: pieces.append(steps) or run(team, program, steps)
    )
    monkeypatch.setattr(executor, "PIECE", 1)
    again, _ = trained(NumbaBackend(threads=1))
    assert set(pieces) == {1}
    assert same_weights(again, expected)


def test_steps_of_nothing_do_nothing():
    counter = np.array([3, 4, 5])
    empty = program.compile_step([Call.of("advance", counter)], 1)
    executor.Team(1).run(empty, 2)
    np.testing.assert_array_equal(counter, [5, 6, 7])
    state = np.array([0, 0, 0, 1, 3])
    assert kinds.share(10, state.ctypes.data) == (3, 6)
