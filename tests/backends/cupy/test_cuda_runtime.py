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
from nnbackend.backends.cupy.interface import CaptureError, Epilogue, Operands
from tests.backends.cupy import test_cublaslt
from tests.backends.cupy.cases import CASES, make
from tests.backends.cupy.comparison import assert_agrees, run
from tests.backends.cupy.fake_cupy import STREAM_ADDRESS, FakeCupy
from tests.backends.cupy.memory import check_all
from tests.backends.cupy.test_cublas import State, build_stand_in
from tests.helpers import classifier, images, same_weights

pytest.importorskip("cupy", reason="runtime.py imports CuPy")


@pytest.fixture(scope="module")
def library(needs_compiler, tmp_path_factory):
    return build_stand_in(tmp_path_factory.mktemp("cublas"))


@pytest.fixture(scope="module")
def lt_library(needs_compiler, tmp_path_factory):
    return test_cublaslt.build_stand_in(tmp_path_factory.mktemp("cublaslt"))


@pytest.fixture
def lt_state(lt_library):
    state = test_cublaslt.State.in_dll(lt_library, "lt_state")
    state.fail = state.none = state.refused = state.no_nan = state.drops_nan = 0
    return state


@pytest.fixture
def cupy(monkeypatch, library, lt_library, lt_state):
    from nnbackend.backends.cupy import runtime

    fake = FakeCupy()
    monkeypatch.setattr(runtime, "cupy", fake)
    monkeypatch.setattr("nnbackend.backends.cupy.backend.probe", lambda: (None, ""))
    monkeypatch.setattr(runtime, "load_cublas", lambda: library)
    monkeypatch.setattr(runtime, "load_cublaslt", lambda: lt_library)
    # The fake libraries compute immediately; here products are enqueued on the stream like other work.
    gemm, launch = runtime.Cublas.gemm, runtime.Plan.launch

    def product(plan, factor=1.0):
        fake.calls.append("product")
        state = test_cublaslt.State.in_dll(lt_library, "lt_state")
        # Errors in a call are seen at once.
        if state.refused:
            launch(plan, factor)
        fake.stream.do(lambda: launch(plan, factor))

    monkeypatch.setattr(runtime.Cublas, "gemm", lambda *arguments: fake.stream.do(lambda: gemm(*arguments)))
    monkeypatch.setattr(runtime.Plan, "launch", product)
    return fake


@pytest.fixture
def backend(cupy) -> CupyBackend:
    return CupyBackend()


@pytest.fixture
def products(cupy) -> CupyBackend:
    """A backend whose steps consist of products and other operations."""
    return CupyBackend(two_kernels=False)


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


# ---- products with epilogues ----------------------------------------------------------------------------------------

TRAINING = {"batch_size": 8, "epochs": 2, "loss": "softmax_cross_entropy", "verbose": False}


def trained(backend):
    x, y = images(rows=75)
    history = classifier(backend).fit(x, y, **TRAINING)
    return np.concatenate(history.step_losses)


def test_a_run_with_epilogues(products, cupy):
    cupy.calls.clear()
    np.testing.assert_allclose(trained(products), trained("numpy"), rtol=1e-4)
    # A hidden layer with ReLU: two products forwards; backwards one with its derivative, and one with the sums above.
    plain = cupy.calls[: cupy.calls.index("begin_capture")]
    assert not {"relu_forward", "relu_gradient_with_sums", "sum_rows", "identity_forward"} & set(plain)
    assert plain.count("product") >= 4


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_epilogues_have_the_backends_precision(cupy, lt_state, precision):
    trained(CupyBackend(precision=precision, two_kernels=False))
    assert lt_state.compute == {"float32": 68, "tf32": 77}[precision]


def test_relu_that_hides_nan_is_not_used(products, cupy, lt_state):
    lt_state.no_nan = 1
    cupy.calls.clear()
    np.testing.assert_allclose(trained(products), trained("numpy"), rtol=1e-4)
    plain = cupy.calls[: cupy.calls.index("begin_capture")]
    assert {"relu_forward", "relu_gradient_with_sums"} <= set(plain)
    # Sums and biases need no ReLU.
    assert not {"sum_rows", "identity_forward"} & set(plain)


def test_a_derivative_of_relu_that_drops_nan_is_not_used(backend, cupy, lt_state, caplog):
    lt_state.drops_nan = 1
    cupy.calls.clear()
    with caplog.at_level("INFO", "nnbackend"):
        np.testing.assert_allclose(trained(backend), trained("numpy"), rtol=1e-4)
    plain = cupy.calls[: cupy.calls.index("begin_capture")]
    assert "relu_gradient_with_sums" in plain
    # ReLU itself needs no mask then.
    assert "relu_forward" not in plain
    assert "no epilogue 'drelu_bgrad' on Fake GPU 0: it replaces NaN" in caplog.text


def test_the_derivative_is_tried_where_relu_is_0(backend, lt_state):
    """Whatever the mask contained before."""
    runtime = backend.runtime
    a, b, c = (runtime.zeros(shape, np.float32) for shape in ((4, 12), (5, 4), (5, 12)))
    epilogue = Epilogue("drelu_bgrad", runtime.zeros((9,), np.float32), runtime.zeros((5, 16), np.uint8), 128)
    for drops_nan in (0, 1):
        lt_state.drops_nan = drops_nan
        runtime.write(np.full((5, 16), 255, np.uint8), epilogue.mask)
        product = runtime.product(Operands(False, False, 9, 5, 4, a, 12, b, 4, c, 12), epilogue)
        assert (product is None) == bool(drops_nan)


def test_trying_a_product_leaves_its_bias_alone(backend):
    runtime = backend.runtime
    a, b, c = (runtime.zeros(shape, np.float32) for shape in ((4, 12), (5, 4), (5, 12)))
    mask = runtime.zeros((5, 16), np.uint8)
    for kind in test_cublaslt.cublaslt.EPILOGUES:
        bias = backend.from_host(np.arange(9, dtype=np.float32))
        assert runtime.product(Operands(False, False, 9, 5, 4, a, 12, b, 4, c, 12), Epilogue(kind, bias, mask, 128))
        np.testing.assert_array_equal(backend.to_host(bias), np.arange(9))


@pytest.mark.parametrize("kind", ["relu_aux_bias", "drelu_bgrad", "bgrada"])
def test_a_product_that_the_library_refuses_is_computed_otherwise(products, lt_state, caplog, kind):
    lt_state.refused = test_cublaslt.cublaslt.EPILOGUES[kind]
    with caplog.at_level("INFO", "nnbackend"):
        np.testing.assert_allclose(trained(products), trained("numpy"), rtol=1e-4)
    assert f"no epilogue {kind!r}" in caplog.text


def test_relu_is_tried_where_rows_of_the_result_are_padded(backend):
    runtime = backend.runtime
    a, b, c = (runtime.zeros(shape, np.float32) for shape in ((4, 12), (5, 4), (5, 12)))
    operands = Operands(False, False, 9, 5, 4, a, 12, b, 4, c, 12)
    bias, mask = runtime.zeros((9,), np.float32), runtime.zeros((5, 16), np.uint8)
    assert runtime.product(operands, Epilogue("relu_aux_bias", bias, mask, 128)) is not None


def test_a_diverging_run_is_visible(backend):
    x, y = images(rows=75)
    network = classifier(backend)
    weights = network.get_weights()
    with pytest.raises(nn.errors.TrainingDivergedError, match="step"):
        network.fit(x, y, optimizer=nn.SGD(1e30), **TRAINING)
    assert all(np.isfinite(array).all() for array in network.get_weights().values())
    assert network.get_weights().keys() == weights.keys()


def test_without_the_library_everything_else_works(products, cupy, monkeypatch, caplog):
    from nnbackend.backends.cupy import runtime

    def missing():
        raise RuntimeError("Failure finding libcublasLt.so")

    monkeypatch.setattr(runtime, "load_cublaslt", missing)
    with caplog.at_level("INFO", logger="nnbackend"):
        np.testing.assert_allclose(trained(products), trained("numpy"), rtol=1e-4)
    assert caplog.text.count("products have no epilogues on Fake GPU 0: Failure finding libcublasLt.so") == 1
    assert "product" not in cupy.calls


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
