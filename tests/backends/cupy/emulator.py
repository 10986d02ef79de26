"""The CUDA runtime of the CuPy backend on the CPU: the same backend class, the same kernels, no GPU.

It detects errors that a real device would ignore: arguments of the wrong type, reads beyond a buffer, writes outside
of one or to padding, products that read beyond their factors, and divergent barriers.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from nnbackend.backends.cupy import CupyBackend
from nnbackend.backends.cupy.cublaslt import EPILOGUES
from nnbackend.backends.cupy.interface import NULL, CaptureError, Epilogue, Operands
from tests.backends.cupy.build import CpuModule, Geometry, Parameter, compiler
from tests.backends.cupy.memory import DeviceArray, allocate, check_all, place_of

__all__ = ["EmulatedRuntime", "LaunchError", "emulated_cupy_backend", "why_not"]

_GRID_LIMITS = (2**31 - 1, 65_535, 65_535)
_BLOCK_LIMITS = (1024, 1024, 64)
_GAP_LIMIT = 1024
"""Elements between two rows of a matrix that are compared."""
_SHARED_LIMIT = 48 << 10
"""Default limit of dynamic shared memory."""


class LaunchError(RuntimeError):
    """A launch or a product that a GPU would reject or run incorrectly."""


def why_not() -> str | None:
    """The reason why kernels cannot be built for the CPU here; None if they can."""
    return None if compiler() else "the CUDA kernels are run on the CPU with g++ on Linux, which is not here"


def emulated_cupy_backend(**order: int) -> CupyBackend:
    """The CuPy backend on the CPU.

    Parameters
    ----------
    reverse_threads, reverse_blocks : bool, optional
        Run the threads of a block, and the blocks of a grid, last first.
    interleave : int, optional
        How warps run: 0, from barrier to barrier together; 1, each as far ahead of the others as barriers let it; other
        numbers are seeds of random orders.

    Skips the test if kernels cannot be built.
    """
    if reason := why_not():
        pytest.skip(reason)
    return CupyBackend(EmulatedRuntime(**order))


@dataclass(frozen=True)
class EmulatedKernel:
    """A kernel built for the CPU."""

    name: str
    parameters: tuple[Parameter, ...]
    address: int
    module: CpuModule


class EmulatedModule:
    """A ``.cu`` file built for the CPU."""

    def __init__(self, module: CpuModule) -> None:
        self._module = module

    def kernel(self, name: str) -> EmulatedKernel:
        address = ctypes.cast(getattr(self._module.library, f"call_{name}"), ctypes.c_void_p).value
        return EmulatedKernel(name, self._module.signatures[name], address, self._module)


class EmulatedGraph:
    """Recorded launches and products with their arguments."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work

    def launch(self) -> None:
        # A device does not report overflow.
        with _DEVICE, np.errstate(over="ignore", invalid="ignore"):
            for run in self.work:
                run()


#: One device for all runtimes, because the kernels store the parameters of a launch in static variables.
_DEVICE = threading.RLock()


class EmulatedRuntime:
    """A ``Runtime`` on NumPy memory. Records every launch and product in `log` if it is a list."""

    device = "CPU emulation of a CUDA device"

    def __init__(self, reverse_threads: bool = False, reverse_blocks: bool = False, interleave: int = 0) -> None:
        self._order = (reverse_threads, reverse_blocks, interleave)
        self.log: list[str] | None = None
        self._captured: list[Callable[[], None]] | None = None
        self._tf32 = False
        #: The supported epilogues.
        self.epilogues = set(EPILOGUES)
        #: The reported free memory.
        self.free = 1 << 33

    # ---- graphs --------------------------------------------------------------------------------------------

    def capture(self, work: Callable[[], None]) -> EmulatedGraph:
        with _DEVICE:
            self._captured = captured = []
            try:
                work()
            finally:
                self._captured = None
        return EmulatedGraph(captured)

    def _reject_in_capture(self, what: str) -> None:
        # Wait for the end of another thread's capture.
        with _DEVICE:
            if self._captured is not None:
                raise CaptureError(f"it {what}")

    # ---- memory --------------------------------------------------------------------------------------------

    def zeros(self, shape, dtype) -> DeviceArray:
        self._reject_in_capture("allocates memory")
        return allocate(tuple(shape), dtype)

    def write(self, host, out) -> None:
        self._reject_in_capture("copies from the host")
        host = _host_array(host)
        _same_layout(host, out)
        _device_array(out).host[...] = host

    def read(self, array) -> np.ndarray:
        self._reject_in_capture("copies to the host")
        return np.array(_device_array(array).host, order="C", copy=True)

    def copy(self, source, out) -> None:
        if self._captured is not None:
            self._captured.append(partial(self.copy, source, out))
            return
        _same_layout(source, out)
        _device_array(out).host[...] = _device_array(source).host

    def free_bytes(self) -> int:
        return self.free

    def pinned(self, shape, dtype) -> np.ndarray:
        self._reject_in_capture("allocates memory")
        return np.zeros(shape, dtype)

    def mark(self) -> None:
        """Nothing to wait for, because all work is synchronous."""

    def send(self, pinned, out, after) -> None:
        self._reject_in_capture("copies from the host")
        assert out.flags.c_contiguous
        self.write(pinned, out)

    def wait(self, mark) -> None:
        self._reject_in_capture("waits for the device")

    def active(self):
        """The emulated device is synchronous, and serves one thread at a time."""
        return _DEVICE

    def synchronize(self) -> None:
        self._reject_in_capture("waits for the device")
        check_all()

    # ---- kernels -------------------------------------------------------------------------------------------

    def load(self, source: str, options: Sequence[str]) -> EmulatedModule:
        self._reject_in_capture("compiles a kernel")
        return EmulatedModule(CpuModule(source, options))

    def launch(self, kernel: EmulatedKernel, grid, block, arguments, shared_bytes: int = 0) -> None:
        if self._captured is not None:
            self._captured.append(partial(self.launch, kernel, grid, block, list(arguments), shared_bytes))
            return
        if self.log is not None:
            self.log.append(kernel.name)
        grid = _extents(kernel, "grid", grid, _GRID_LIMITS)
        block = _extents(kernel, "block", block, _BLOCK_LIMITS)
        if np.prod(block) > _BLOCK_LIMITS[0]:
            raise LaunchError(f"{kernel.name}: {block} are more than 1024 threads a block")
        if not 0 <= shared_bytes <= _SHARED_LIMIT:
            raise LaunchError(f"{kernel.name}: {shared_bytes} bytes of dynamic shared memory")
        if len(arguments) != len(kernel.parameters):
            raise LaunchError(f"{kernel.name}: {len(arguments)} arguments for {len(kernel.parameters)} parameters")
        values = [_kernel_argument(kernel, *pair) for pair in zip(kernel.parameters, arguments, strict=True)]
        addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        arrays = [argument for argument in arguments if isinstance(argument, DeviceArray)]
        padding = [(gap, gap.copy()) for gap in map(_padding, arrays) if gap is not None]
        geometry = Geometry((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), shared_bytes, *self._order)
        error = kernel.module.library.launch(kernel.address, addresses, geometry)
        if error:
            fault = kernel.module.library.fault()
            where = f": {place_of(fault)}" if fault else ""
            raise LaunchError(f"{kernel.name}: {error.decode()}{where}")
        for array in arrays:
            array.allocation.check()
        for gap, before in padding:
            if gap.tobytes() != before.tobytes():
                raise LaunchError(f"{kernel.name} wrote into the padding between rows")

    # ---- products ------------------------------------------------------------------------------------------

    def allow_tf32(self, allow: bool) -> None:
        self._tf32 = allow

    def gemm(self, operands: Operands) -> None:
        """Check cuBLAS's contract: column-major storage, leading dimensions, no access outside."""
        if self._captured is not None:
            self._captured.append(partial(self.gemm, operands))
            return
        if self.log is not None:
            self.log.append("gemm")
        left, right, out = self._matrices(operands)
        out[...] = left @ right + out if operands.adds else left @ right
        operands.c.allocation.check()

    def product(self, operands: Operands, epilogue: Epilogue) -> EmulatedProduct | None:
        self._reject_in_capture("chooses an algorithm")
        return EmulatedProduct(self, operands, epilogue) if epilogue.kind in self.epilogues else None

    def launch_product(self, operands: Operands, epilogue: Epilogue) -> None:
        """cuBLASLt's contract, checked."""
        if self._captured is not None:
            self._captured.append(partial(self.launch_product, operands, epilogue))
            return
        if self.log is not None:
            self.log.append(f"gemm_{epilogue.kind}")
        left, right, out = self._matrices(operands)
        bias = _device_array(epilogue.bias)
        if bias.shape != (operands.m,) or bias.dtype != operands.c.dtype or not bias.flags.c_contiguous:
            raise LaunchError(f"{epilogue.kind}: a bias of {bias.shape} {bias.dtype} for {operands.m} rows")
        product = left @ right + out if operands.adds else left @ right
        if "bias" in epilogue.kind:
            product = product + bias.host[:, None]
        if "aux" in epilogue.kind or "drelu" in epilogue.kind:
            bits = _bits(epilogue, operands.m, operands.n)
            if "aux" in epilogue.kind:
                _device_array(epilogue.mask).host[...] = np.packbits(bits(product > 0), axis=1, bitorder="little")
            else:
                # As in the kernels, infinity times 0 is NaN, too.
                with np.errstate(invalid="ignore"):
                    product = product * bits(None)
        if epilogue.kind.startswith("relu"):
            product = np.maximum(product, 0)
        if epilogue.kind == "drelu_bgrad":
            bias.host[...] = product.sum(axis=1)
        if epilogue.kind == "bgrada":
            bias.host[...] = left.sum(axis=1)
        out[...] = product
        operands.c.allocation.check()

    def _matrices(self, operands: Operands) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """op(A), op(B) and C."""
        arrays = operands.a, operands.b, operands.c
        if len({array.dtype for array in arrays}) > 1 or operands.c.dtype.kind != "f":
            raise LaunchError(f"gemm of {arrays[0].dtype} and {arrays[1].dtype} into {arrays[2].dtype}")
        left, right, out = (
            _by_columns(name, array, *extents)
            for name, array, extents in zip("ABC", arrays, operands.extents(), strict=True)
        )
        if any(np.shares_memory(out, factor) for factor in (left, right)):
            raise LaunchError("gemm writes over one of its factors")
        if self._tf32 and operands.c.dtype == np.float32:
            left, right = _tf32(left), _tf32(right)
        return left.T if operands.transpose_a else left, right.T if operands.transpose_b else right, out


@dataclass(frozen=True)
class EmulatedProduct:
    """A product with an epilogue."""

    runtime: EmulatedRuntime
    operands: Operands
    epilogue: Epilogue

    def launch(self) -> None:
        self.runtime.launch_product(self.operands, self.epilogue)


def _bits(epilogue: Epilogue, rows: int, columns: int) -> Callable[[np.ndarray | None], np.ndarray]:
    """Converts a (rows, columns) array of bits to the layout of the mask, with a row of bits for every column, or
    back."""
    mask, stride = _device_array(epilogue.mask), epilogue.mask_stride
    if stride % 128 or stride < rows or mask.nbytes < stride // 8 * columns or not mask.flags.c_contiguous:
        raise LaunchError(f"a mask of {mask.nbytes} bytes, {stride} bits a column, for {rows} x {columns}")

    def convert(values: np.ndarray | None) -> np.ndarray:
        if values is None:
            return np.unpackbits(mask.host, axis=1, bitorder="little")[:, :rows].T.astype(bool)
        return np.pad(values.T, ((0, 0), (0, stride - rows)))

    return convert


def _tf32(matrix: np.ndarray) -> np.ndarray:
    """Round to TF32, with 10 bits of fraction; halves away from 0."""
    bits = np.ascontiguousarray(matrix).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def _by_columns(name: str, array: DeviceArray, rows: int, columns: int, leading: int) -> np.ndarray:
    """The matrix that cuBLAS sees: ``rows`` x ``columns``, stored in column-major order from the array's first element
    on."""
    host = _device_array(array).host
    if leading < max(1, rows):
        raise LaunchError(f"gemm: leading dimension of {name} is {leading}, with {rows} rows")
    reach = ((columns - 1) * leading + rows) * host.itemsize
    low, high = np.lib.array_utils.byte_bounds(host)
    if reach > high - low:
        raise LaunchError(f"gemm: {name} reaches {reach - (high - low)} bytes beyond its array")
    return as_strided(host, (rows, columns), (host.itemsize, leading * host.itemsize))


def _extents(kernel: EmulatedKernel, what: str, given: Sequence[int], limits: tuple[int, ...]) -> tuple[int, ...]:
    extents = (*given, 1, 1)[:3]
    if len(given) > 3 or any(not 1 <= extent <= limit for extent, limit in zip(extents, limits, strict=True)):
        raise LaunchError(f"{kernel.name}: {what} {given}")
    return extents


def _kernel_argument(kernel: EmulatedKernel, parameter: Parameter, value) -> np.ndarray:
    """The memory of a kernel argument, which must have exactly the declared type."""
    if parameter.pointer and isinstance(value, DeviceArray) and value.dtype == parameter.dtype:
        if value.ndim and value.strides[-1] not in (value.itemsize, 0) and value.shape[-1] > 1:
            raise LaunchError(f"{kernel.name}: the last axis of {parameter.name} is not contiguous")
        return np.array([value.host.ctypes.data], np.uint64)
    if parameter.pointer and value is NULL:
        return np.zeros(1, np.uint64)
    if not parameter.pointer and isinstance(value, np.generic) and value.dtype == parameter.dtype:
        return np.array([value])
    wanted = f"{parameter.dtype}{' array' if parameter.pointer else ''}"
    raise LaunchError(f"{kernel.name}: {parameter.name} is declared {wanted} and got {value!r}")


def _padding(array: DeviceArray) -> np.ndarray | None:
    """The padding between the rows of a matrix, if there is any."""
    host = array.host
    if host.ndim != 2 or host.shape[0] < 2:
        return None
    gap = host.strides[0] // host.itemsize - host.shape[1]
    if gap <= 0:
        return None
    # Of a huge gap, the beginning is enough.
    gap = min(gap, _GAP_LIMIT)
    after = as_strided(host, (host.shape[0] - 1, host.shape[1] + gap), host.strides)
    return after[:, host.shape[1] :]


def _device_array(array) -> DeviceArray:
    if not isinstance(array, DeviceArray):
        raise TypeError(f"expected a device array, got {type(array).__name__}")
    return array


def _host_array(array) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected a host array, got {type(array).__name__}")
    return array


def _same_layout(source, out) -> None:
    if source.shape != out.shape or source.dtype != out.dtype:
        raise TypeError(f"copy of {source.shape} {source.dtype} to {out.shape} {out.dtype}")
