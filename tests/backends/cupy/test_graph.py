"""Whole recorded steps as graphs: captured and replayed on the CPU in the order in which a GPU would run them."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.cupy import CupyBackend
from nnbackend.backends.cupy.graph import UNROLLED, GraphExecutor
from nnbackend.backends.cupy.interface import CaptureError
from nnbackend.backends.executor import Call
from nnbackend.training import run
from tests.backends.cupy.emulator import EmulatedRuntime
from tests.helpers import classifier, images, rich_network, same_weights

OPTIMIZERS = {
    "sgd": lambda: nn.SGD(0.5),
    "nesterov": lambda: nn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda: nn.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: nn.RMSprop(0.003),
    "lion": lambda: nn.Lion(1e-3, weight_decay=0.1),
}

#: The graphs of a training run: a full batch, the shorter last one, and several full ones together, unless this machine
#: is so busy that a few steps take a tenth of a second, the limit of a portion.
CAPTURES = (2, 3)

pytestmark = pytest.mark.usefixtures("needs_compiler")


class WatchedRuntime(EmulatedRuntime):
    """Counts captures, reads to the host, and launches outside of graphs."""

    def __init__(self, **order):
        super().__init__(**order)
        self.captures = self.reads = 0

    def capture(self, work):
        self.captures += 1
        return super().capture(work)

    def read(self, array):
        self.reads += 1
        return super().read(array)


class CountingRuntime(EmulatedRuntime):
    """Records the launched graphs by their numbers of launches and products."""

    def __init__(self):
        super().__init__()
        self.launched = []

    def capture(self, work):
        graph = super().capture(work)
        launch, held = graph.launch, len(graph.work)
        graph.launch = lambda: (self.launched.append(held), launch())
        return graph


def train(network, optimizer, epochs=3, **options):
    x, y = images(rows=70)
    history = network.fit(
        x, y, epochs=epochs, batch_size=4, loss="softmax_cross_entropy", optimizer=optimizer, verbose=False, **options
    )
    return np.concatenate(history.step_losses)


# ---- same results --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_replayed_step_agrees_with_the_reference(name):
    runtime = WatchedRuntime()
    losses = train(rich_network(CupyBackend(runtime), "float64"), OPTIMIZERS[name]())
    expected = train(rich_network("numpy", "float64"), OPTIMIZERS[name]())
    assert len(losses) == 3 * 18
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert runtime.captures in CAPTURES


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_layers_have_their_own_learning_rates(name):
    networks = [rich_network(CupyBackend(EmulatedRuntime()), "float64"), rich_network("numpy", "float64")]
    for network in networks:
        network.layers[0].learning_rate_factor = 0.25
    losses, expected = (train(network, OPTIMIZERS[name]()) for network in networks)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)


@pytest.mark.parametrize("options", [{"accumulate": 3}, {"ema": 0.9}, {"accumulate": 2, "ema": 0.9, "clip_norm": 0.1}])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_accumulated_and_averaged_steps_agree_with_the_reference(name, options):
    runtime = WatchedRuntime()
    networks = [rich_network(CupyBackend(runtime), "float64"), rich_network("numpy", "float64")]
    losses, expected = (train(network, OPTIMIZERS[name](), epochs=2, **options) for network in networks)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert runtime.captures > 0
    for key, weights in networks[1].get_weights().items():
        np.testing.assert_allclose(networks[0].get_weights()[key], weights, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("order", [(True, False, 0), (False, True, 1), (True, True, 2)])
def test_the_order_of_threads_and_blocks_in_a_graph_does_not_matter(order):
    """Bit for bit, because a difference would be a race."""
    networks = [rich_network(CupyBackend(EmulatedRuntime(*order_of))) for order_of in ((), order)]
    first, second = (train(network, nn.Adam(0.01)) for network in networks)
    assert first.tobytes() == second.tobytes()
    assert same_weights(*networks)


def test_graphs_and_single_operations_have_the_same_bits(monkeypatch):
    replayed = rich_network(CupyBackend(EmulatedRuntime()))
    train(replayed, nn.Adam(0.01))
    plain = rich_network(CupyBackend(EmulatedRuntime()))
    monkeypatch.setattr(GraphExecutor, "run", lambda self, repeats: self._plain.run(repeats))
    train(plain, nn.Adam(0.01))
    assert same_weights(replayed, plain)


def test_predictions_are_replayed():
    runtime = WatchedRuntime()
    network = classifier(CupyBackend(runtime))
    x, _ = images(rows=70)
    expected = classifier("numpy").predict(x)
    for _ in range(3):
        np.testing.assert_allclose(network.predict(x), expected, rtol=1e-5, atol=1e-6)
    assert runtime.captures > 0


def test_a_network_of_images_is_captured_and_agrees_with_the_reference():
    """Its temporary memory exists after the first step, also that of the shorter last batch."""
    layers = [
        nn.Reshape((3, 4, 1)), nn.Conv2D(9, 2, padding="same"), nn.BatchNormalization(), nn.Activation("relu"),
        nn.MaxPool2D(2, 1), nn.Residual([nn.Conv2D(9, 3, padding="same"), nn.LayerNormalization()]),
        nn.ZeroPadding2D(1), nn.L2Pool2D(2), nn.Flatten(), nn.Dense(4),
    ]  # fmt: skip
    runtime = WatchedRuntime()
    losses = []
    for backend in (CupyBackend(runtime), "numpy"):
        network = nn.Network(layers, 12, backend=backend, dtype="float64", seed=5)
        losses.append(train(network, nn.Adam(0.01)))
    np.testing.assert_allclose(*losses, rtol=1e-7)
    assert runtime.captures in CAPTURES


# ---- how it runs ----------------------------------------------------------------------------------------------------


def recorded(backend, steps=1):
    """An executor of a step that advances a counter, and a function for the number of runs."""
    counter = backend.from_host(np.zeros(3, np.int64))
    executor = backend.executor([Call.of("advance", counter)])
    return executor, lambda: int(backend.to_host(counter)[0])


def test_the_first_step_runs_plainly_and_all_others_in_graphs():
    runtime = CountingRuntime()
    executor, count = recorded(CupyBackend(runtime))
    assert executor.name == "graph"
    executor.run(0)
    executor.run(1)
    assert (count(), runtime.launched) == (1, [])
    executor.run(2 * UNROLLED + 3)
    assert count() == 2 * UNROLLED + 4
    assert runtime.launched == [UNROLLED, UNROLLED, 1, 1, 1]
    executor.run(UNROLLED)
    assert count() == 3 * UNROLLED + 4
    assert runtime.launched[5:] == [UNROLLED]


def test_after_the_capture_nothing_is_launched_one_by_one(monkeypatch):
    backend = CupyBackend(EmulatedRuntime())
    executor, count = recorded(backend)
    executor.run(1 + UNROLLED + 1)
    monkeypatch.setattr(executor._plain, "run", None)
    executor.run(UNROLLED + 5)
    assert count() == 2 * UNROLLED + 7


def test_a_new_learning_rate_needs_no_new_capture():
    runtime = WatchedRuntime()
    network = classifier(CupyBackend(runtime))
    losses = train(network, nn.SGD(nn.ExponentialDecay(0.5, 0.5)), epochs=4)
    expected = train(classifier("numpy"), nn.SGD(nn.ExponentialDecay(0.5, 0.5)), epochs=4)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert runtime.captures in CAPTURES


def test_the_host_reads_twice_per_epoch():
    """The losses, and whether weights and slots are finite."""
    reads = []
    for epochs in (3, 8):
        runtime = WatchedRuntime()
        train(classifier(CupyBackend(runtime)), nn.SGD(0.5), epochs=epochs)
        reads.append(runtime.reads)
    assert reads[1] - reads[0] == 2 * 5


def test_the_next_order_is_drawn_while_the_device_works(monkeypatch):
    """Between the last launch of an epoch and the wait for it; the order is the same as if drawn later."""
    said = []
    draw, wait = run.epoch_order, WatchedRuntime.synchronize
    monkeypatch.setattr(run, "epoch_order", lambda *arguments: (said.append(arguments[1]), draw(*arguments))[1])
    monkeypatch.setattr(WatchedRuntime, "synchronize", lambda self: (said.append("wait"), wait(self))[1])
    network = classifier(CupyBackend(WatchedRuntime()))
    losses = train(network, nn.SGD(0.5))
    # The first is needed immediately; the last is drawn for an epoch that does not take place.
    assert [event for event in said if said.count(event) == 1] == [0, 1, 2, 3]
    assert said[said.index(1) + 1] == said[said.index(2) + 1] == "wait"
    monkeypatch.undo()
    np.testing.assert_allclose(losses, train(classifier("numpy"), nn.SGD(0.5)), rtol=1e-4)


# ---- what cannot be captured ----------------------------------------------------------------------------------------

FORBIDDEN = {
    "allocates memory": lambda backend, array: backend.empty((3,), np.float32),
    "copies from the host": lambda backend, array: backend.write(np.zeros(3, np.int64), array),
    "copies to the host": lambda backend, array: backend.to_host(array),
    "waits for the device": lambda backend, array: backend.synchronize(),
    "compiles a kernel": lambda backend, array: backend.runtime.load("", ()),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_work_that_cannot_be_captured_is_refused(what):
    backend = CupyBackend(EmulatedRuntime())
    array = backend.from_host(np.zeros(3, np.int64))
    with pytest.raises(CaptureError, match=what):
        backend.runtime.capture(lambda: FORBIDDEN[what](backend, array))
    # It is allowed again afterwards.
    if what != "compiles a kernel":
        FORBIDDEN[what](backend, array)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_rejected_capture_falls_back_to_the_plain_executor(what, caplog, monkeypatch):
    backend = CupyBackend(EmulatedRuntime())
    executor, count = recorded(backend)
    array = backend.from_host(np.zeros(3, np.int64))
    advance = executor._plain._bound[0][0]

    def badly(counter):
        FORBIDDEN[what](backend, array) if executor._warm else None
        advance(counter)

    executor._plain._bound[0] = (badly, executor._plain._bound[0][1])
    executor.run(1)
    if what == "compiles a kernel":
        monkeypatch.setattr(backend.runtime, "load", only_while_capturing(backend.runtime))
    with caplog.at_level(logging.WARNING, "nnbackend"):
        executor.run(UNROLLED + 2)
    assert count() == UNROLLED + 3
    assert executor.name == "plain"
    assert executor.reason == f"the step could not be captured in a CUDA graph: it {what}"
    assert [record.getMessage() for record in caplog.records] == [
        f"training continues with the plain executor: {executor.reason}"
    ]


def only_while_capturing(runtime):
    return lambda source, options: runtime._reject_in_capture("compiles a kernel")


def test_a_device_without_graphs_trains_too(caplog):
    class WithoutGraphs(EmulatedRuntime):
        def capture(self, work):
            raise CaptureError("hipErrorNotSupported")

    network = classifier(CupyBackend(WithoutGraphs()))
    losses = train(network, nn.SGD(0.5))
    np.testing.assert_allclose(losses, train(classifier("numpy"), nn.SGD(0.5)), rtol=1e-4)
    assert "hipErrorNotSupported" in caplog.text


def test_a_user_defined_function_is_not_captured():
    backend = CupyBackend(EmulatedRuntime())
    called = []
    executor = backend.executor([Call.custom(lambda backend, value: called.append(value), 7)])
    assert (executor.name, executor.reason) == ("plain", "<lambda> is a user-defined function")
    executor.run(UNROLLED)
    assert called == [7] * UNROLLED


def with_function(backend, places):
    """A step with a user-defined function in the middle, and its output."""
    x, middle, out, counter = (backend.from_host(array) for array in (
        np.ones((4, 3), np.float32), np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32), np.zeros(3, np.int64)
    ))  # fmt: skip
    return out, [
        Call.of("dropout", x, 0.5, 1, 0, counter, middle),
        Call.custom(lambda backend, counter: places.append(backend.to_host(counter)[0]), counter),
        Call.of("dropout", middle, 0.5, 1, 1, counter, out),
        Call.of("advance", counter),
    ]


def test_neighbours_of_a_user_defined_function_are_captured():
    """Each segment is a graph; the function runs between them, on the same stream."""
    runtime = EmulatedRuntime()
    backend, places, expected_places = CupyBackend(runtime), [], []
    out, calls = with_function(backend, places)
    executor = backend.executor(calls)
    assert (executor.name, executor.reason) == (
        "graph, 1 of 4 calls from Python", "<lambda> is a user-defined function",
    )  # fmt: skip
    assert backend.explain_executor(calls) == (executor.name, executor.reason)
    expected, plain_calls = with_function(backend, expected_places)
    plain = backend.plain_executor(plain_calls)
    for repeats in (1, 1, UNROLLED):
        executor.run(repeats)
        plain.run(repeats)
        np.testing.assert_array_equal(backend.to_host(out), backend.to_host(expected))
    assert places == expected_places == list(range(UNROLLED + 2))
    graphs = [part._graphs for part in executor._parts if isinstance(part, GraphExecutor)]
    assert [sorted(each) for each in graphs] == [[1], [1]]


def test_a_device_without_graphs_runs_the_segments_plainly():
    class WithoutGraphs(EmulatedRuntime):
        def capture(self, work):
            raise CaptureError("hipErrorNotSupported")

    backend, places = CupyBackend(WithoutGraphs()), []
    _, calls = with_function(backend, places)
    executor = backend.executor(calls)
    executor.run(3)
    assert executor.name == "plain"
    assert places == [0, 1, 2]
