"""The compiled executor of the Numba backend: every operation, any number of threads, and what it leaves to Python."""

from __future__ import annotations

import functools
import multiprocessing
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import nnbackend as nn
from nnbackend.backends.contract import OPERATIONS, Call
from nnbackend.backends.executor import PlainExecutor
from nnbackend.backends.numba import NumbaBackend, executor, kinds, program
from nnbackend.backends.numba.intrinsics import flush_subnormals
from nnbackend.backends.numba.tile_shape import VectorUnit
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
            compiled = program.compile_step([Call.of(name, *arguments)], 2)
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
        monkeypatch.setattr(program, "_WORTH_COLUMNS", [(10**9, 0)])
        monkeypatch.setattr(program, "_MANY_COLUMNS", 1)
    monkeypatch.setattr(executor, "_SHARED_STEP", 0)
    monkeypatch.setattr(executor, "_SHARED_RUN", 0)


@pytest.mark.slow
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
    "sgd": lambda: nn.SGD(0.1, weight_decay=1e-3), "momentum": lambda: nn.SGD(0.1, momentum=0.9),
    "nesterov": lambda: nn.SGD(0.1, momentum=0.9, nesterov=True),
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

x86_only = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64", "i686", "x86"),
    reason="subnormal results are left as they are: only of x86 it is known how to change that",
)


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


# ---- other processors, other processes -----------------------------------------------------------------------------

LESSER = """
import sys
from nnbackend.backends.numba.tile_shape import FLOAT32, FLOAT64, VectorUnit
from nnbackend.testing import CASES, Lab
from nnbackend.testing.lab import Shape
from tests.backends.test_numba_compiled import ThroughTheTable

unit, dtype = VectorUnit.of_this_cpu(), sys.argv[1]
print(unit.width, unit.fused, 4 * FLOAT32.lanes, 8 * FLOAT64.lanes, FLOAT32.fused, FLOAT64.fused)
backend = ThroughTheTable(threads=1)
for name in sys.argv[2:]:
    for shape in (Shape(1, 1, 1), Shape(7, 17, 10), Shape(33, 65, 40), Shape(40, 150, 33)):
        CASES[name](Lab(backend, dtype, shape))
print(ThroughTheTable.refused)
"""
#: What is computed with vectors of the CPU's width.
VECTOR_CASES = (
    "dense_layers", "dense_gradients", "activations", "activations_of_large_inputs", "activations_pass_nan_on",
    "activation_gradients", "softmax_cross_entropy_of_labels", "sigmoid_cross_entropies", "sgd_updates",
    "adam_updates", "rmsprop_updates",
)  # fmt: skip


@pytest.mark.slow
@x86_only
@pytest.mark.parametrize(
    ("cpu", "features", "unit", "dtype"),
    [
        ("haswell", "+sse4.2,+avx,+avx2,+fma", VectorUnit(32, 16, True), "float32"),
        ("sandybridge", "+sse4.2,+avx", VectorUnit(32, 16, False), "float64"),
        ("nehalem", "+sse4.2", VectorUnit(16, 16, False), "float32"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalnum() else "",
)
def test_lesser_processors_do_what_the_contract_says(cpu, features, unit, dtype, tmp_path):
    """Without fused multiply-adds above all: this one has them, and hides what only they make right."""
    here = VectorUnit.of_this_cpu()
    if unit.width > here.width or unit.fused > here.fused:
        pytest.skip(f"this CPU has less: {here}")
    forced = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    output = in_a_process_of_its_own(LESSER, dtype, *VECTOR_CASES, cache=tmp_path, **forced)
    fused = str(unit.fused)
    assert output.split() == [str(unit.width), fused, str(unit.width), str(unit.width), fused, fused, "0"]


HITS = """
import numpy as np
from nnbackend.backends.numba import compiled
from nnbackend.backends.numba.updates import MOMENTUM, SGD

kept, compile_callback = [], compiled.compile_callback
compiled.compile_callback = lambda *arguments: kept.append(compile_callback(*arguments)) or kept[-1]
for rule in (SGD, MOMENTUM):
    compiled.address_of("bias_gradient", np.dtype("float32"), rule)
    print(kept[-1].cache_hits)
"""


@pytest.mark.slow
def test_operations_are_compiled_once_for_all_processes(tmp_path):
    """Each update has a file of its own."""
    first, second = (in_a_process_of_its_own(HITS, cache=tmp_path) for _ in range(2))
    assert first.split() == ["0", "0"]
    assert second.split() == ["1", "1"]


def in_a_process_of_its_own(script, *arguments, cache, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        # Where `tests` can be imported.
        cwd=Path(__file__).parents[2],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    name, reason = "compiled, 2 of 23 calls from Python", "double is a function from outside"
    assert message.endswith(f"with the {name} executor: {reason}")
    for network in (net, custom_network("numba")):
        assert network.summary().splitlines()[-1].endswith(f"; executor {name}: {reason}")


def test_a_step_of_functions_from_outside_is_plain():
    called = []
    executor = NumbaBackend(threads=1).executor([Call.custom(lambda backend, value: called.append(value), 7)])
    assert (executor.name, executor.reason) == ("plain", "<lambda> is a function from outside")
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


def test_padded_rows_cost_only_the_calls_that_use_them():
    class Padded(NumbaBackend):
        row_multiple = 16

    x, y = images(rows=40)
    nets = []
    for backend in (Padded(threads=1), NumbaBackend(threads=1)):
        net = nn.Network([nn.Dense(16, activation="relu"), nn.Dense(32), nn.Dense(16)], 16, backend=backend, seed=1)
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


def test_a_long_run_comes_back_to_python_between_its_pieces(monkeypatch):
    """So that Ctrl-C is heard."""
    expected, _ = trained(NumbaBackend(threads=1))
    pieces = []
    run = executor.Team.run
    monkeypatch.setattr(
        executor.Team, "run", lambda team, program, steps: pieces.append(steps) or run(team, program, steps)
    )
    monkeypatch.setattr(executor, "_PIECE", 1)
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
