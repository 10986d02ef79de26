"""``runtime.py`` with a fake CuPy on host memory: copies, launches and products."""

from __future__ import annotations

import gc
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.cupy import CupyBackend
from nnbackend.backends.cupy.interface import CaptureError
from tests.backends.cupy.cases import CASES, make
from tests.backends.cupy.comparison import assert_agrees, run
from tests.backends.cupy.fake_cupy import STREAM_ADDRESS
from tests.backends.cupy.memory import check_all
from tests.backends.cupy.test_cublas import State
from tests.helpers import classifier, images, same_weights

pytest.importorskip("cupy", reason="runtime.py imports CuPy")


def test_device_stream_and_workspace(backend, library):
    assert backend.device == "Fake GPU 0"
    state = State.in_dll(library, "state")
    assert state.stream == STREAM_ADDRESS
    assert state.bytes == 32 << 20
    assert state.workspace % 256 == 0


def test_tf32_is_used_only_on_request(cupy, library):
    assert CupyBackend().device == "Fake GPU 0"
    assert State.in_dll(library, "state").math == 0
    assert CupyBackend(precision="tf32").device == "Fake GPU 0, products in TF32"
    assert State.in_dll(library, "state").math == 3


def test_stays_on_the_device_it_was_made_on(cupy):
    from nnbackend.backends.cupy.runtime import CudaRuntime

    backend = CupyBackend(CudaRuntime(1))
    assert backend.device == "Fake GPU 1"
    assert cupy.current == 0
    assert_agrees(backend, make("dense_forward-relu-bias", 3, 4, 5, 0), "float32")
    assert cupy.current == 0


def test_kernels_are_loaded_on_the_device_of_their_runtime(cupy):
    from nnbackend.backends.cupy.runtime import CudaRuntime

    backend = CupyBackend(CudaRuntime(1))
    assert_agrees(backend, make("bias_gradient", 3, 4, 5, 0), "float32")
    assert cupy.current == 0


def test_a_rank_touches_its_own_device_only(cupy, monkeypatch):
    from nnbackend.distributed import placement

    monkeypatch.setattr("nnbackend.backends.cupy.probe", lambda: (None, ""))
    monkeypatch.setattr(placement, "get_backend", lambda name: CupyBackend())
    ranks = SimpleNamespace(size=4, local_rank=3, cores=1)
    assert placement.local_backend("cupy", ranks).device == "Fake GPU 1"
    assert cupy.touched == {1}


def test_garbage_is_collected_before_a_capture_and_not_during_it(backend):
    alive = []

    class Handle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            alive.remove(self.number)

    for number in range(2):
        handle = Handle()
        handle.number = number
        alive.append(number)
        del handle

        def check() -> None:
            assert alive == []
            assert not gc.isenabled()

        backend.runtime.capture(check)
        assert gc.isenabled()


@pytest.mark.parametrize(
    "name", [n for n in CASES if n.startswith(("dense_", "bias", "gather", "weight_penalty-0.3", "softmax_cross"))]
)
@pytest.mark.parametrize("padding", [0, 3])
def test_operations(backend, name, padding):
    for rows, columns, inner in ((1, 1, 1), (1, 7, 3), (9, 1, 4), (5, 6, 7)):
        assert_agrees(backend, make(name, rows, columns, inner, 0), "float32", padding)
        check_all()


@pytest.mark.parametrize("shape", [(5,), (1, 6), (4, 6), (4, 1), (1, 1)])
@pytest.mark.parametrize("stride", [6, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_copies(backend, cupy, shape, stride, dtype):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    buffers = [backend.from_host(np.full(4 * stride, 99, dtype)) for _ in range(2)]
    views = [backend.view(buffer, 0, shape, stride if len(shape) == 2 else None) for buffer in buffers]
    backend.write(values, views[0])
    backend.copy(views[0], views[1])
    np.testing.assert_array_equal(backend.to_host(views[1]), values)
    # the rest of the buffer is as it was
    expected = np.full(4 * stride, 99, dtype)
    if len(shape) == 1:
        expected[:5] = values
    else:
        expected.reshape(4, stride)[: shape[0], : shape[1]] = values
    np.testing.assert_array_equal(backend.to_host(buffers[1]), expected)
    check_all()


def test_write_takes_any_host_layout(backend):
    out = backend.empty((3, 4), np.float32)
    values = np.asfortranarray(np.arange(12.0).reshape(3, 4))[:, ::-1]
    backend.write(values.astype(np.float32), out)
    np.testing.assert_array_equal(backend.to_host(out), values)


@pytest.mark.slow
def test_operations_neither_wait_nor_allocate_nor_talk_to_the_host(backend, cupy):
    """After a first run, a step consists only of kernels, products and device copies, which a graph can capture."""
    for name in CASES:
        case = make(name, 700, 9, 4, 0)
        run(backend, case, "float64")
        arrays = {id(value): backend.from_host(value) for value in case.arguments if isinstance(value, np.ndarray)}
        arguments = [arrays.get(id(value), value) for value in case.arguments]
        cupy.calls.clear()
        getattr(backend, case.operation)(*arguments)
        forbidden = [call for call in cupy.calls if call in ("zeros", "synchronize") or call.endswith((" 1", " 2"))]
        assert not forbidden, name
    one, other = backend.from_host(np.ones(3)), backend.empty((3,), np.float64)
    cupy.calls.clear()
    backend.copy(one, other)
    assert cupy.calls == ["memcpyAsync 3"]


def test_write_may_be_followed_by_a_change_of_the_host_array(backend, cupy):
    cupy.calls.clear()
    backend.write(np.ones(3), backend.empty((3,), np.float64))
    assert cupy.calls[-1] == "synchronize"


# ---- graphs ---------------------------------------------------------------------------------------------------------


def test_a_step_is_captured_once_and_launched_as_a_graph(backend, cupy):
    x, y = images(rows=70)
    options = {"batch_size": 4, "loss": "softmax_cross_entropy", "verbose": False}
    expected = classifier("numpy").fit(x, y, epochs=2, optimizer=nn.Adam(0.01), **options)
    network = classifier(backend)
    history = network.fit(x, y, epochs=2, optimizer=nn.Adam(0.01), **options)
    np.testing.assert_allclose(np.concatenate(history.step_losses), np.concatenate(expected.step_losses), rtol=1e-4)
    # The full batch, several together unless the machine is very busy, and the shorter last one.
    captures = cupy.calls.count("begin_capture")
    assert captures in (2, 3)
    assert cupy.calls.count("end_capture") == cupy.calls.count("upload") == captures
    # 17 full batches and a last one per epoch; the first of either kind runs without a graph.
    assert captures < cupy.calls.count("graph") <= 2 * 18 - 2


@pytest.mark.parametrize(
    ("what", "work"),
    [
        ("allocates memory", lambda backend: backend.empty((3,), np.float32)),
        ("copies from the host", lambda backend: backend.write(np.ones(3), backend.three)),
        ("copies to the host", lambda backend: backend.to_host(backend.three)),
        ("waits for the device", lambda backend: backend.synchronize()),
        ("compiles a kernel", lambda backend: backend.runtime.load("", ())),
    ],
)
def test_operations_that_cannot_be_captured_never_reach_the_driver(backend, cupy, what, work):
    backend.three = backend.empty((3,), np.float64)
    cupy.calls.clear()
    with pytest.raises(CaptureError, match=what):
        backend.runtime.capture(lambda: work(backend))
    # The capture is ended anyway; otherwise the stream would be unusable.
    assert cupy.calls == ["begin_capture", "end_capture"]
    assert cupy.stream.captured is None
    np.testing.assert_array_equal(backend.to_host(backend.three), 0)


def test_a_driver_that_cannot_capture_is_an_error_that_says_so(backend, cupy):
    cupy.refuses_capture = True
    with pytest.raises(CaptureError, match="hipErrorNotSupported"):
        backend.runtime.capture(lambda: None)
    assert "end_capture" not in cupy.calls


def test_a_capture_that_another_library_breaks_is_tried_again(backend, cupy):
    counter = backend.from_host(np.zeros(3, np.int64))
    backend.advance(counter)
    cupy.breaks_captures = 1
    graph = backend.runtime.capture(lambda: backend.advance(counter))
    graph.launch()
    np.testing.assert_array_equal(backend.to_host(counter), 2)
    cupy.breaks_captures = 2
    with pytest.raises(CaptureError, match="StreamCaptureInvalidated"):
        backend.runtime.capture(lambda: backend.advance(counter))
    assert cupy.breaks_captures == 0


def test_copies_on_the_device_are_part_of_a_graph(backend, cupy):
    source, out = backend.from_host(np.arange(6.0)), backend.empty((6,), np.float64)
    graph = backend.runtime.capture(lambda: backend.copy(source, out))
    np.testing.assert_array_equal(backend.to_host(out), 0)
    graph.launch()
    np.testing.assert_array_equal(backend.to_host(out), np.arange(6.0))


# ---- streaming of rows during computation ---------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["kernels", "copies"])
def test_rows_stream_whichever_stream_is_ahead(backend, cupy, first, monkeypatch):
    x, y = images(rows=75)
    monkeypatch.setattr("nnbackend.data.streaming._PORTION_BYTES", 100)
    options = {"batch_size": 4, "epochs": 3, "loss": "softmax_cross_entropy", "verbose": False}
    resident, streamed = classifier(backend), classifier(backend)
    resident.fit(x, y, **options)
    cupy.queues.first = first
    cupy.calls.clear()
    streamed.fit(x, y, stream=True, **options)
    assert same_weights(resident, streamed)
    # Rows and labels of 10 portions per epoch come from page-locked memory, and the host observes the waits.
    assert cupy.calls.count("pinned") >= 4
    assert cupy.calls.count("wait") >= 3 * 2 * 8


@pytest.mark.parametrize("first", ["kernels", "copies"])
def test_the_order_of_the_next_epoch_is_ready_in_time(backend, cupy, first):
    x, y = images(rows=75)
    options = {"batch_size": 4, "epochs": 4, "loss": "softmax_cross_entropy", "verbose": False}
    expected = classifier("numpy").fit(x, y, **options)
    cupy.queues.first = first
    history = classifier(backend).fit(x, y, **options)
    np.testing.assert_allclose(np.concatenate(history.step_losses), np.concatenate(expected.step_losses), rtol=1e-4)


def test_free_memory_is_the_drivers_and_the_pools(backend):
    assert backend.free_bytes() == (7 << 30) + (1 << 20)


@pytest.mark.parametrize(
    ("what", "work"),
    [
        ("allocates memory", lambda runtime, out: runtime.pinned((3,), np.float32)),
        ("copies from the host", lambda runtime, out: runtime.send(np.ones(3), out, None)),
        ("waits for the device", lambda runtime, out: runtime.wait(None)),
    ],
)
def test_a_capture_rejects_streaming(backend, what, work):
    three = backend.empty((3,), np.float64)
    with pytest.raises(CaptureError, match=what):
        backend.runtime.capture(lambda: work(backend.runtime, three))


TRAINING = {"batch_size": 8, "epochs": 2, "loss": "softmax_cross_entropy", "verbose": False}


# ---- several threads ------------------------------------------------------------------------------------------------


def test_a_capture_records_no_requests_of_other_threads(backend, cupy):
    """They wait for its end, and their requests then run immediately."""
    out, other = backend.empty((3,), np.float64), backend.empty((3,), np.float64)
    source = backend.from_host(np.arange(3.0))
    capturing, asked = threading.Event(), threading.Event()
    read = []

    def another():
        capturing.wait()
        asked.set()
        backend.write(np.full(3, 7.0), other)
        read.append(backend.to_host(other))

    def work():
        capturing.set()
        asked.wait()
        time.sleep(0.05)
        backend.copy(source, out)

    thread = threading.Thread(target=another)
    thread.start()
    graph = backend.runtime.capture(work)
    thread.join()
    np.testing.assert_array_equal(read, [np.full(3, 7.0)])
    np.testing.assert_array_equal(backend.to_host(out), 0)
    graph.launch()
    np.testing.assert_array_equal(backend.to_host(out), np.arange(3.0))


def test_networks_train_and_predict_in_several_threads_on_one_device(backend):
    x, y = images(rows=75)
    networks = [classifier(backend, seed=seed) for seed in range(3)]
    expected = [classifier("numpy", seed=seed) for seed in range(3)]
    failures = []

    def work(network):
        try:
            network.fit(x, y, **TRAINING)
            network.predict(x)
            network.evaluate(x, y)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(network,)) for network in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for network, reference in zip(networks, expected, strict=True):
        reference.fit(x, y, **TRAINING)
        np.testing.assert_allclose(network.predict(x), reference.predict(x), rtol=1e-3, atol=1e-4)
