"""Indices beyond 32 bits and the limits of grids, which the small matrices of other tests do not reach."""

from __future__ import annotations

import numpy as np
import pytest

from nnbackend.backends.cupy import launches
from nnbackend.backends.cupy.kernels import kernel_options, kernel_source
from nnbackend.backends.numpy import NumpyBackend
from tests.backends.cupy.cases import CASES, make
from tests.backends.cupy.comparison import Case, Double, run
from tests.backends.cupy.emulator import EmulatedRuntime

#: Elements from one row to the next. Memory between rows exists only when it is used, which never happens.
STRIDE = 2**32 + 4

#: Products go to cuBLAS, whose strides have 32 bits; images are contiguous; and flat buffers have no rows.
_OTHERS = ("dense_", "convolution", "pool", "place", "resample", "draw_", "clip_", "square_", "sgd_", "adam_", "rms")
_FLAT = ("advance", "bias_gradient", "gather-int32-vector", "gather-real-vector")
STRIDED = [name for name in CASES if not name.startswith(_OTHERS) and name not in _FLAT]


def _spread(backend, host: np.ndarray):
    """The array on the device; a matrix with very distant rows."""
    real = np.dtype("float32") if host.dtype == np.float64 and not isinstance(host, Double) else host.dtype
    host = np.asarray(host).astype(real)
    if host.ndim != 2:
        return backend.from_host(host)
    try:
        buffer = backend.empty((len(host) * STRIDE,), real)
    except OSError as error:
        pytest.skip(f"this machine reserves no memory that is not used: {error}")
    view = backend.view(buffer, 0, host.shape, STRIDE)
    backend.write(host, view)
    return view


@pytest.mark.parametrize("name", STRIDED)
def test_offsets_of_rows_have_64_bits(emulated, name):
    case = make(name, 3, 5, 2, 0)
    arrays = [value for value in case.arguments if isinstance(value, np.ndarray)]
    expected = run(emulated, case, "float32")
    spread = {id(array): _spread(emulated, array) for array in arrays}
    getattr(emulated, case.operation)(*(spread.get(id(value), value) for value in case.arguments))
    for array, wanted in zip(arrays, expected, strict=True):
        assert emulated.to_host(spread[id(array)]).tobytes() == wanted.tobytes()


def test_some_cases_have_rows():
    assert {"activation_forward-relu", "gather-real", "gather-uint8", "softmax_cross_entropy-labels"} < set(STRIDED)


INDICES = r"""
extern "C" __global__ void indices(int64* out) {
    // Far out in a grid that the CPU could not run.
    blockIdx = {2000000011u, 65534, 0};
    gridDim = {2147483647u, 65535, 1};
    blockDim = {64, 16, 1};
    threadIdx = {63, 15, 0};
    const int64 found[] = {first_row(),     row_step(),     first_column(), column_step(),
                           first_element(), element_step(), row_of_warp()};
    for (int i = 0; i < 7; ++i) out[i] = found[i];
}
"""


def test_indices_of_threads_have_64_bits(needs_compiler):
    runtime = EmulatedRuntime()
    common = kernel_source("reductions").partition('extern "C"')[0]
    out = runtime.zeros((7,), np.int64)
    module = runtime.load(common + INDICES, kernel_options(np.dtype("float32")))
    runtime.launch(module.kernel("indices"), (1,), (1,), (out,))
    x, y, across, down = 2000000011, 65534, 2147483647, 65535
    expected = [x * 16 + 15, across * 16, y * 64 + 63, down * 64, x * 64 + 63, across * 64, x * 16 + 15]
    assert runtime.read(out).tolist() == expected


MANY = (1, 2, 33, 70_000, 5_000_000, 2**33)
_LIMITS = (2**31 - 1, 65_535, 65_535)


@pytest.mark.parametrize("rows", MANY)
@pytest.mark.parametrize("columns", MANY)
def test_grids_are_within_the_limits_of_every_device(rows, columns):
    chunk = launches.chunk_rows(rows)
    made = [
        launches.elements(rows * columns),
        launches.matrix(rows, columns),
        launches.matrix(rows, columns, max_blocks=256),
        launches.column_sums(rows, columns, chunk),
    ]
    assert made[2].blocks <= 256
    for launch in made:
        assert launch.threads <= 1024
        assert all(1 <= extent <= limit for extent, limit in zip(launch.grid, _LIMITS, strict=False)), launch


def test_a_matrix_wider_than_a_grid(emulated):
    """More columns than the second axis of a grid has blocks for."""
    x = np.arange(2_100_000, dtype=np.float64)[None] % 7 - 3
    case = Case("activation_forward", (x, "relu", 0.0, np.zeros_like(x)))
    found, expected = (run(backend, case, "float32")[1] for backend in (emulated, NumpyBackend()))
    np.testing.assert_array_equal(found, expected)
