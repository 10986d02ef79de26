"""The kernels and products on a real GPU, with the same cases that the CPU build passes."""

from __future__ import annotations

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backends.cupy import CupyBackend, device_name, probe
from nnbackend.backends.cupy.cublaslt import EPILOGUES
from nnbackend.backends.cupy.interface import Epilogue, Operands
from tests.backends.cupy.cases import CASES, make
from tests.backends.cupy.comparison import assert_agrees, run
from tests.backends.cupy.emulator import EmulatedRuntime
from tests.helpers import images, same_weights

pytestmark = pytest.mark.gpu

# (rows, columns, inner, padding): ones, odd sizes, the layers of MNIST nets, more rows than one sum takes.
SIZES = [(1, 1, 1, 0), (3, 33, 7, 3), (256, 200, 784, 0), (100, 10, 1000, 2), (2500, 77, 65, 3)]


@pytest.fixture(scope="module")
def backend() -> CupyBackend:
    reason, remedy = probe()
    if reason is not None:
        pytest.skip(f"{reason}. {remedy}")
    return CupyBackend()


def test_device_has_a_name(backend):
    assert backend.device == device_name()
    assert "NVIDIA" in repr(backend)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_numpy(backend, name, dtype):
    for seed, (rows, columns, inner, padding) in enumerate(SIZES):
        assert_agrees(backend, make(name, rows, columns, inner, seed), dtype, padding)


@pytest.mark.parametrize("name", CASES)
def test_repeats_bit_for_bit(backend, name):
    case = make(name, 256, 200, 784, 0)
    first, second = run(backend, case, "float32"), run(backend, case, "float32")
    assert [array.tobytes() for array in first] == [array.tobytes() for array in second]


def test_products_are_float32_and_not_tf32(backend):
    """TF32 keeps ten bits of each factor: such products would have an error of about a hundredth."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((512, 1024)), rng.standard_normal((1024, 512))
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    out = backend.empty((512, 512), np.float32)
    backend.dense_forward(backend.from_host(x), backend.from_host(weight), None, "identity", 0.0, None, out)
    exact = x.astype(np.float64) @ weight.astype(np.float64)
    assert np.abs(backend.to_host(out) - exact).max() < 3e-4


def test_products_use_tf32_on_request(backend):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal((512, 512)).astype(np.float32) for _ in range(2))
    tensor = CupyBackend(precision="tf32")
    out = tensor.empty((512, 512), np.float32)
    tensor.dense_forward(tensor.from_host(x), tensor.from_host(weight), None, "identity", 0.0, None, out)
    error = np.abs(tensor.to_host(out) - x.astype(np.float64) @ weight.astype(np.float64)).max()
    # Devices before Ampere lack TF32 and compute in float32.
    assert error < 0.2


RELU_NET = [nn.Dense(200, activation="relu"), nn.Dense(81, activation="relu"), nn.Dense(10)]


def _trained(backend, dtype, rows=700):
    x, y = images(rows=rows, features=784, classes=10)
    network = nn.Network(RELU_NET, 784, backend=backend, dtype=dtype, seed=1, input_scale=1 / 255)
    options = {"epochs": 2, "batch_size": 256, "loss": "softmax_cross_entropy", "verbose": False}
    history = network.fit(x, y, optimizer=nn.SGD(0.05), **options)
    return np.concatenate(history.step_losses), network


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
def test_all_ways_train_the_same_network(backend, dtype, tolerance):
    expected, _ = _trained("numpy", "float64")
    for options in ({}, {"two_kernels": False}, {"two_kernels": False, "epilogues": False}):
        losses, _ = _trained(CupyBackend(**options), dtype)
        np.testing.assert_allclose(losses, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("two_kernels", [True, False])
def test_a_run_repeats_bit_for_bit(backend, two_kernels):
    runs = [_trained(CupyBackend(two_kernels=two_kernels), "float32") for _ in range(2)]
    assert runs[0][0].tobytes() == runs[1][0].tobytes()
    assert same_weights(runs[0][1], runs[1][1])


def test_networks_that_train_together_have_the_bits_of_lone_ones(backend):
    x, y = images(rows=700, features=784, classes=10)
    options = {"epochs": 2, "batch_size": 256, "loss": "softmax_cross_entropy", "verbose": False}

    def networks():
        layers = [nn.Dense(40, activation="relu"), nn.Dropout(0.1), nn.Dense(10)]
        return [nn.Network(layers, 784, backend=backend, seed=seed, input_scale=1 / 255) for seed in range(5)]

    together, alone = networks(), networks()
    nn.fit_many(together, x, y, optimizer=[nn.Adam(0.001 * (1 + seed)) for seed in range(5)], **options)
    for seed, network in enumerate(alone):
        network.fit(x, y, optimizer=nn.Adam(0.001 * (1 + seed)), **options)
    assert all(same_weights(one, other) for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("kind", EPILOGUES)
def test_the_epilogues_of_this_device(backend, kind, record_property):
    """cuBLASLt may lack some; the others agree with the emulator, also for odd sizes."""
    if backend.runtime._cublaslt is None:
        pytest.skip("no cuBLASLt")
    emulated = EmulatedRuntime()
    rng = np.random.default_rng(0)
    m, n, k = 81, 100, 200
    values = [rng.standard_normal(shape).astype(np.float32) for shape in ((k, 84), (n, k), (n, 84), (m,))]
    bits = rng.integers(0, 256, (n, 16)).astype(np.uint8)
    found = []
    for runtime in (emulated, backend.runtime):
        arrays = [runtime.zeros(array.shape, array.dtype) for array in (*values, bits)]
        for array, given in zip(arrays, (*values, bits), strict=True):
            runtime.write(given, array)
        a, b, c, bias, mask = arrays
        operands = Operands(False, False, m, n, k, a, 84, b, k, c, 84)
        product = runtime.product(operands, Epilogue(kind, bias, mask, 128))
        if product is None:
            pytest.skip(f"cuBLASLt has no {kind} here that keeps the contract")
        runtime.write(values[2], c)
        product.launch()
        found.append([runtime.read(c), runtime.read(bias)])
        if kind == "relu_aux_bias":
            # The order of the bits depends on the library, but not their number.
            found[-1].append(np.unpackbits(runtime.read(mask)[:, :10]).sum())
    if kind == "drelu_bgrad":
        pytest.skip("reads bits that only the library writes: whole runs show it")
    for expected, result in zip(*found, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


def test_very_large_arrays(backend):
    """More elements than 32 bits count, one byte each."""
    rows, columns = 70_000, 40_000
    source = backend.empty((rows, columns), np.uint8)
    backend.write(np.full((1, columns), 200, np.uint8), source[rows - 1 :])
    order = backend.from_host(np.full(2, rows - 1, np.int64))
    out = backend.empty((2, columns), np.float32)
    backend.gather(source, order, backend.from_host(np.zeros(3, np.int64)), 2, 0.5, out)
    np.testing.assert_array_equal(backend.to_host(out), np.full((2, columns), 100, np.float32))


def test_copies_of_padded_rows(backend):
    values = np.arange(15.0).reshape(3, 5)
    buffers = [backend.from_host(np.full(24, 99.0)) for _ in range(2)]
    source, out = (backend.view(buffer, 0, (3, 5), 8) for buffer in buffers)
    backend.write(values, source)
    backend.copy(source, out)
    np.testing.assert_array_equal(backend.to_host(out), values)
    gaps = backend.to_host(buffers[1]).reshape(3, 8)[:, 5:]
    np.testing.assert_array_equal(gaps, 99.0)
