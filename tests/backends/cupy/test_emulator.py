"""The emulator detects errors: each test runs a kernel or product with one error."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest

from nnbackend.backends.cupy.interface import NULL, Epilogue, Operands
from nnbackend.backends.cupy.kernels import kernel_options, kernel_source
from tests.backends.cupy.emulator import EmulatedRuntime, LaunchError
from tests.backends.cupy.memory import GuardError

SOURCE = r"""
typedef REAL real;
typedef long long int64;

extern "C" __global__ void fill(real* out, int64 first, int64 last, double value) {
    for (int64 i = first + threadIdx.x; i < last; i += blockDim.x) out[i] = (real)value;
}
extern "C" __global__ void shift(real* values) { values[threadIdx.x] = values[threadIdx.x + 1]; }
extern "C" __global__ void read_and_forget(real* values) {
    const volatile real* from = values;
    const real value = from[threadIdx.x];
    if (value > 1e30f) values[0] = value;
}
// Each warp sums, writes its sum, and reads the others'. If `correct`, barriers separate this.
extern "C" __global__ void sum_of_sums(real* values, int64 correct) {
    DYNAMIC_SHARED(real, shared);
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    real sum = values[threadIdx.x];
    for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    shared[warp] = 0;
    __syncwarp();
    shared[warp] = sum;
    __syncwarp();
    if (correct) __syncthreads();
    real total = 0;
    for (int i = 0; i < warps; ++i) total += shared[i];
    values[threadIdx.x] = total;
}
extern "C" __global__ void count_blocks(int64* total) { total[blockIdx.x] = total[0] + 1; }
extern "C" __global__ void place(int64* out) {
    const int64 thread = ((int64)threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const int64 block = ((int64)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int64 threads = (int64)blockDim.x * blockDim.y * blockDim.z;
    out[block * threads + thread] = block * threads + thread;
}
extern "C" __global__ void reverse_through_shared(real* values) {
    DYNAMIC_SHARED(real, shared);
    shared[threadIdx.x] = values[threadIdx.x];
    __syncthreads();
    values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void read_unwritten_shared(real* out) {
    DYNAMIC_SHARED(real, shared);
    out[threadIdx.x] = shared[threadIdx.x];
}
extern "C" __global__ void diverge(real* out) {
    if (threadIdx.x < 3)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1;
}
extern "C" __global__ void deadlock(real* out) {
    if (threadIdx.x % 2) __syncthreads();
    if (threadIdx.x % 2 == 0) __syncwarp();
    out[threadIdx.x] = 1;
}
extern "C" __global__ void leave_early(real* out, int64 stay) {
    if (threadIdx.x >= stay) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}
extern "C" __global__ void shuffles(real* values) {
    const real v = values[threadIdx.x];
    const real a = __shfl_xor_sync(0xffffffffu, v, 1);
    const real b = __shfl_down_sync(0xffffffffu, v, 2);
    const real c = __shfl_sync(0xffffffffu, v, 5);
    values[threadIdx.x] = a + 100 * b + 10000 * c;
}
"""


@pytest.fixture(scope="module")
def runtime(needs_compiler) -> EmulatedRuntime:
    return EmulatedRuntime()


@pytest.fixture(scope="module")
def module(runtime):
    return runtime.load(SOURCE, ("--std=c++17", "-DREAL=float"))


def _array(runtime, *values: float):
    out = runtime.zeros((len(values),), np.float32)
    runtime.write(np.array(values, np.float32), out)
    return out


def _launch(runtime, module, name, *arguments, block=(8,), grid=(1,), shared=0):
    runtime.launch(module.kernel(name), grid, block, arguments, shared)


def test_runs_a_kernel(runtime, module):
    out = runtime.zeros((100,), np.float32)
    _launch(runtime, module, "fill", out, np.int64(3), np.int64(90), np.float64(2.5))
    expected = np.zeros(100, np.float32)
    expected[3:90] = 2.5
    np.testing.assert_array_equal(runtime.read(out), expected)


@pytest.mark.parametrize(("size", "first", "last", "place"), [(100, -1, 3, "before"), (99, 90, 100, "after")])
def test_write_beside_a_buffer(runtime, module, size, first, last, place):
    out = runtime.zeros((size,), np.float32)
    with pytest.raises(GuardError, match=f"4 bytes were written {place}"):
        _launch(runtime, module, "fill", out, np.int64(first), np.int64(last), np.float64(2.5))


def test_access_beyond_a_buffer(runtime, module):
    """Also a read whose result is not used; the emulator still works afterwards, and other programs' signals do."""
    before = signal.getsignal(signal.SIGSEGV)
    for _ in range(2):
        with pytest.raises(LaunchError, match="outside of every buffer: 4 bytes after a buffer of 400 bytes"):
            _launch(runtime, module, "fill", runtime.zeros((100,), np.float32), *_range(101, 102))
        with pytest.raises(LaunchError, match="outside of every buffer: 0 bytes after a buffer of 32 bytes"):
            _launch(runtime, module, "read_and_forget", _array(runtime, *range(8)), block=(9,))
    assert signal.getsignal(signal.SIGSEGV) == before
    test_runs_a_kernel(runtime, module)


def _range(first, last):
    return np.int64(first), np.int64(last), np.float64(2.5)


def test_write_between_padded_rows(runtime, module):
    matrix = runtime.zeros((40,), np.float32).reshape(4, 10)[:, :7]
    with pytest.raises(LaunchError, match="padding"):
        _launch(runtime, module, "fill", matrix, np.int64(0), np.int64(8), np.float64(2.5))


@pytest.mark.parametrize(
    "arguments",
    [
        (np.int64(0), np.int64(1)),
        (np.int64(0), np.int64(1), np.float32(1)),
        (np.int64(0), 1, np.float64(1)),
        (np.int32(0), np.int64(1), np.float64(1)),
    ],
)
def test_wrong_scalars(runtime, module, arguments):
    with pytest.raises(LaunchError):
        _launch(runtime, module, "fill", _array(runtime, 1), *arguments)


@pytest.mark.parametrize("out", [np.zeros(4, np.float32), None, 0])
def test_wrong_pointers(runtime, module, out):
    with pytest.raises(LaunchError, match="out is declared float32 array"):
        _launch(runtime, module, "fill", out, np.int64(0), np.int64(1), np.float64(1))
    with pytest.raises(LaunchError, match="out is declared float32 array"):
        _launch(runtime, module, "fill", runtime.zeros((4,), np.float64), np.int64(0), np.int64(1), np.float64(1))


def test_null_pointer_is_accepted(runtime, module):
    _launch(runtime, module, "fill", NULL, np.int64(0), np.int64(0), np.float64(1))


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((0,), (8,), 0), ((1,), (1025,), 0), ((1, 65536), (8,), 0), ((1,), (64, 32), 0), ((1,), (8,), 1 << 20)],
)
def test_geometry_no_device_takes(runtime, module, grid, block, shared):
    with pytest.raises(LaunchError):
        _launch(runtime, module, "shift", _array(runtime, *range(9)), grid=grid, block=block, shared=shared)


@pytest.mark.parametrize("reverse", [False, True])
def test_three_dimensions(needs_compiler, reverse):
    runtime = EmulatedRuntime(reverse, reverse)
    out = runtime.zeros((2 * 3 * 4 * 5 * 3 * 2,), np.int64)
    kernel = runtime.load(SOURCE, ("-DREAL=double",)).kernel("place")
    runtime.launch(kernel, (5, 3, 2), (2, 3, 4), (out,))
    np.testing.assert_array_equal(runtime.read(out), np.arange(out.size))


def test_races_change_with_the_order(needs_compiler):
    results = []
    for reverse in (False, True):
        runtime = EmulatedRuntime(reverse_threads=reverse)
        module = runtime.load(SOURCE, ("-DREAL=float",))
        values = _array(runtime, *range(9))
        _launch(runtime, module, "shift", values)
        results.append(runtime.read(values).tolist())
    assert results[0] != results[1]


def test_races_between_blocks_change_with_the_order(needs_compiler):
    results = []
    for reverse in (False, True):
        runtime = EmulatedRuntime(reverse_blocks=reverse)
        total = runtime.zeros((4,), np.int64)
        _launch(runtime, runtime.load(SOURCE, ("-DREAL=float",)), "count_blocks", total, grid=(4,), block=(1,))
        results.append(runtime.read(total).tolist())
    assert results[0] != results[1]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("interleave", [0, 1, 2, 3])
def test_a_missing_barrier_between_warps_shows_if_they_do_not_run_in_lockstep(needs_compiler, interleave, reverse):
    runtime = EmulatedRuntime(reverse, interleave=interleave)
    module = runtime.load(SOURCE, ("-DREAL=float",))
    for correct in (1, 0):
        values = _array(runtime, *[1] * 128)
        _launch(runtime, module, "sum_of_sums", values, np.int64(correct), block=(128,), shared=16)
        assert (runtime.read(values) == 128).all() == bool(correct or not interleave)


@pytest.mark.parametrize("interleave", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_warps_that_do_not_run_in_lockstep(needs_compiler, interleave, reverse):
    """All threads run once, also those of an incomplete warp, and barriers hold them."""
    runtime = EmulatedRuntime(reverse, reverse, interleave)
    module = runtime.load(SOURCE, ("-DREAL=float",))
    out = runtime.zeros((6 * 70,), np.int64)
    _launch(runtime, module, "place", out, block=(70,), grid=(6,))
    np.testing.assert_array_equal(runtime.read(out), np.arange(out.size))
    values = _array(runtime, *range(70))
    _launch(runtime, module, "reverse_through_shared", values, block=(70,), shared=280)
    np.testing.assert_array_equal(runtime.read(values), np.arange(70)[::-1])
    for kernel in ("diverge", "deadlock"):
        with pytest.raises(LaunchError, match="divergent barrier"):
            _launch(runtime, module, kernel, _array(runtime, *range(70)), block=(70,))


def test_dynamic_shared_memory(runtime, module):
    values = _array(runtime, *range(8))
    _launch(runtime, module, "reverse_through_shared", values, shared=32)
    np.testing.assert_array_equal(runtime.read(values), np.arange(8)[::-1])
    with pytest.raises(LaunchError, match="beyond the dynamic shared memory"):
        _launch(runtime, module, "reverse_through_shared", values, shared=28)


def test_unwritten_shared_memory_is_not_a_number(runtime, module):
    values = _array(runtime, *range(8))
    _launch(runtime, module, "read_unwritten_shared", values, shared=32)
    assert np.isnan(runtime.read(values)).all()


@pytest.mark.parametrize("kernel", ["diverge", "deadlock"])
def test_divergent_barriers(runtime, module, kernel):
    with pytest.raises(LaunchError, match="divergent barrier"):
        _launch(runtime, module, kernel, _array(runtime, *range(8)))
    # and the emulator still works afterwards
    test_dynamic_shared_memory(runtime, module)


def test_finished_threads_are_not_waited_for(runtime, module):
    out = _array(runtime, *[0] * 8)
    _launch(runtime, module, "leave_early", out, np.int64(5))
    assert runtime.read(out).tolist() == [1] * 5 + [0] * 3


@pytest.mark.parametrize("reverse", [False, True])
def test_shuffles(needs_compiler, reverse):
    runtime = EmulatedRuntime(reverse_threads=reverse)
    module = runtime.load(SOURCE, ("-DREAL=double",))
    values = runtime.zeros((64,), np.float64)
    runtime.write(np.arange(64.0), values)
    _launch(runtime, module, "shuffles", values, block=(64,))
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    down = np.where(lane + 2 < 32, lane + 2, lane)
    np.testing.assert_array_equal(runtime.read(values), (warp + (lane ^ 1)) + 100 * (warp + down) + 10000 * (warp + 5))


def test_shuffle_from_a_lane_that_does_not_exist(runtime, module):
    with pytest.raises(LaunchError, match="shuffle from a lane"):
        _launch(runtime, module, "shuffles", _array(runtime, *range(5)), block=(5,))


def test_a_kernel_that_does_not_compile_says_why(runtime):
    with pytest.raises(RuntimeError, match="nonsense"):
        runtime.load('extern "C" __global__ void f(int* out) { out[0] = nonsense; }', ())


# ---- products --------------------------------------------------------------------------------------------------------


def _matrices(runtime, *shapes):
    return [runtime.zeros(shape, np.float64) for shape in shapes]


def test_gemm_is_by_columns(runtime):
    a, b, c = _matrices(runtime, (6,), (6,), (4,))
    runtime.write(np.arange(6.0), a)  # 2 x 3 by columns: [[0, 2, 4], [1, 3, 5]]
    runtime.write(np.array([1.0, 0, 0, 0, 0, 1]), b)  # 3 x 2: [[1, 0], [0, 0], [0, 1]]
    operands = Operands(False, False, 2, 2, 3, a, 2, b, 3, c, 2)
    runtime.gemm(operands)
    np.testing.assert_array_equal(runtime.read(c), [0, 1, 4, 5])
    runtime.gemm(replace(operands, adds=True))
    np.testing.assert_array_equal(runtime.read(c), [0, 2, 8, 10])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((False, False, 2, 2, 3, 1, 3, 2), "leading dimension of A"),
        ((False, False, 2, 2, 3, 2, 2, 2), "leading dimension of B"),
        ((False, False, 2, 2, 3, 2, 3, 1), "leading dimension of C"),
        ((False, False, 2, 2, 4, 2, 4, 2), "A reaches 16 bytes beyond"),
        ((False, False, 2, 3, 3, 2, 3, 2), "B reaches 24 bytes beyond"),
        ((False, False, 2, 2, 3, 2, 3, 3), "C reaches 8 bytes beyond"),
        ((True, False, 2, 2, 3, 2, 3, 2), "leading dimension of A"),
    ],
)
def test_gemm_refuses(runtime, arguments, message):
    *sizes, lda, ldb, ldc = arguments
    a, b, c = _matrices(runtime, (6,), (6,), (4,))
    with pytest.raises(LaunchError, match=message):
        runtime.gemm(Operands(*sizes, a, lda, b, ldb, c, ldc))


def test_gemm_refuses_other_types_and_aliases(runtime):
    a, b = _matrices(runtime, (4,), (4,))
    single = runtime.zeros((4,), np.float32)
    with pytest.raises(LaunchError, match="float32"):
        runtime.gemm(Operands(False, False, 2, 2, 2, a, 2, b, 2, single, 2))
    with pytest.raises(LaunchError, match="factors"):
        runtime.gemm(Operands(False, False, 2, 2, 2, a, 2, b, 2, a, 2))


@pytest.mark.parametrize(
    ("epilogue", "message"),
    [
        (("bias", (3,)), r"bias of \(3,\)"),
        (("relu_aux_bias", (2,), (2, 16), 127), "127 bits a column"),
        (("relu_aux_bias", (2,), (2, 16), 256), "256 bits a column"),
        (("drelu_bgrad", (2,), (1, 16), 128), "a mask of 16 bytes"),
    ],
)
def test_an_epilogue_rejects_wrong_operands(runtime, epilogue, message):
    a, b, c = _matrices(runtime, (4,), (4,), (4,))
    kind, bias, *mask = epilogue
    if mask:
        mask = [runtime.zeros(mask[0], np.uint8), mask[1]]
    product = runtime.product(
        Operands(False, False, 2, 2, 2, a, 2, b, 2, c, 2), Epilogue(kind, runtime.zeros(bias, np.float64), *mask)
    )
    with pytest.raises(LaunchError, match=message):
        product.launch()


# ---- arrays ----------------------------------------------------------------------------------------------------------


def test_device_arrays_are_no_host_arrays(runtime):
    array = runtime.zeros((4, 3), np.float32)
    for misuse in (
        lambda: np.asarray(array),
        lambda: array + 1,
        lambda: np.ones(3) * array,
        lambda: float(array[0, 0]),
        lambda: array[[0, 1]],
        lambda: runtime.write(array, array),
        lambda: runtime.read(np.zeros(3)),
        lambda: runtime.write(np.zeros((4, 3)), array),
    ):
        with pytest.raises(TypeError):
            misuse()
    with pytest.raises(ValueError, match="would copy"):
        array[:, :2].reshape(8)
    assert array[1:3].shape == (2, 3)
    assert array[0].shape == (3,)


def test_writes_anywhere_are_found_when_synchronizing(runtime):
    array = runtime.zeros((4,), np.float32)
    array.allocation.before[5] = 0
    with pytest.raises(GuardError):
        runtime.synchronize()


TWO_SUMS = r"""
extern "C" __global__ void two_sums(double* first, double* second) {
    DYNAMIC_SHARED(double, scratch);
    first[threadIdx.x] = block_sum((double)threadIdx.x, scratch);
    second[threadIdx.x] = block_sum(1.0, scratch);
}
"""


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sum_does_not_disturb_the_one_before(needs_compiler, reverse):
    """The product's own `block_sum`: every thread has read a sum before the next one begins."""
    runtime = EmulatedRuntime(reverse_threads=reverse)
    common = kernel_source("reductions").partition('extern "C"')[0]
    module = runtime.load(common + TWO_SUMS, kernel_options(np.dtype("float64")))
    first, second = (runtime.zeros((8,), np.float64) for _ in range(2))
    _launch(runtime, module, "two_sums", first, second, shared=64)
    assert runtime.read(first).tolist() == [28] * 8
    assert runtime.read(second).tolist() == [8] * 8
