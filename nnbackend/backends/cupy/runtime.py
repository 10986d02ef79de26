"""The CUDA runtime, implemented with CuPy. Apart from the probe, only this file imports CuPy."""

from __future__ import annotations

import gc
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, HostArray
from nnbackend.backends.cupy.cublas import WORKSPACE_BYTES, Cublas, CublasError, load_cublas
from nnbackend.backends.cupy.cublaslt import CublasLt, Plan, load_cublaslt
from nnbackend.backends.cupy.interface import (
    Argument,
    CaptureError,
    Dimensions,
    Epilogue,
    Kernel,
    Mark,
    Operands,
    Runtime,
)
from nnbackend.support.fork_lock import cached_property
from nnbackend.support.memory import without_collections

__all__ = ["CudaGraph", "CudaModule", "CudaProduct", "CudaRuntime", "device_count", "use_device"]

_log = logging.getLogger("nnbackend")


class CudaModule:
    """A compiled ``.cu`` file on a runtime's device."""

    def __init__(self, source: str, options: Sequence[str], runtime: CudaRuntime) -> None:
        self._runtime = runtime
        with runtime.active():
            self._module = cupy.RawModule(code=source, options=tuple(options), backend="nvrtc")

    def kernel(self, name: str) -> Kernel:
        # CuPy compiles and loads a module when its first function is looked up, on the device that is then current.
        with self._runtime.active():
            # The function inside CuPy's RawKernel: looked up only once, and the stream is an argument.
            return self._module.get_function(name).kernel


class CudaGraph:
    """A captured CUDA graph, and the stream it runs on."""

    def __init__(self, graph: Any, runtime: CudaRuntime) -> None:
        self._graph, self._runtime = graph, runtime

    def launch(self) -> None:
        with self._runtime.active():
            self._graph.launch()


class CudaProduct:
    """A product with an epilogue; keeps the arrays used by its plan alive."""

    def __init__(self, plan: Plan, operands: Operands, epilogue: Epilogue, runtime: CudaRuntime) -> None:
        self._plan, self._runtime = plan, runtime
        self._arrays = (operands, epilogue)

    def launch(self) -> None:
        with self._runtime.active():
            self._plan.launch()


class CudaRuntime(Runtime):
    """One CUDA device and one stream.

    It does not use the default stream, which cannot be captured in a graph and waits for all other streams. Arrays are
    copied as bytes, so padded rows need neither temporary arrays nor kernels. A lock serialises threads; a thread that
    runs a step operation by operation holds it for the whole step.

    Parameters
    ----------
    device : int, optional
        The device's number; the current one if not given.
    """

    def __init__(self, device: int | None = None) -> None:
        self._number = cupy.cuda.runtime.getDevice() if device is None else device
        #: Held during each request to the device, and during a whole capture, which must not record requests of other
        #: threads.
        self._lock = threading.RLock()
        #: The thread that is capturing, if any.
        self._capturing: int | None = None
        self._tf32 = False
        with self._here():
            self.device = cupy.cuda.runtime.getDeviceProperties(self._number)["name"].decode()
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._copies = cupy.cuda.Stream(non_blocking=True)
            self._workspace = self.zeros((WORKSPACE_BYTES,), np.uint8)
            # Makes CuPy load its own cuBLAS, so that `load_cublas` finds the same one.
            cupy.cuda.cublas  # noqa: B018
            self._cublas = Cublas(load_cublas(), self._stream.ptr, self._workspace.data.ptr, WORKSPACE_BYTES)

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        self._reject_in_capture("allocates memory")
        with self._here(), self._stream:
            return cupy.zeros(shape, dtype)

    def write(self, host: HostArray, out: Array) -> None:
        self._reject_in_capture("copies from the host")
        host = np.ascontiguousarray(host, out.dtype)
        with self._here():
            self._copy(out.data.ptr, out, host.ctypes.data, host, cupy.cuda.runtime.memcpyHostToDevice)
            # The caller may change or free its array after this returns, but pageable memory may be read later.
            self._stream.synchronize()

    def read(self, array: Array) -> HostArray:
        self._reject_in_capture("copies to the host")
        host = np.empty(array.shape, array.dtype)
        with self._here():
            self._copy(host.ctypes.data, host, array.data.ptr, array, cupy.cuda.runtime.memcpyDeviceToHost)
            self._stream.synchronize()
        return host

    def copy(self, source: Array, out: Array) -> None:
        with self._here():
            self._copy(out.data.ptr, out, source.data.ptr, source, cupy.cuda.runtime.memcpyDeviceToDevice)

    def free_bytes(self) -> int:
        with self._here():
            free, _ = cupy.cuda.runtime.memGetInfo()
            return int(free) + int(cupy.get_default_memory_pool().free_bytes())

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        self._reject_in_capture("allocates memory")
        with self._here():
            size = math.prod(shape)
            memory = cupy.cuda.alloc_pinned_memory(max(1, size * np.dtype(dtype).itemsize))
            return np.frombuffer(memory, dtype, size).reshape(shape)

    def mark(self) -> Mark:
        with self._here():
            event = cupy.cuda.Event(disable_timing=True)
            event.record(self._stream)
            return event

    def send(self, pinned: HostArray, out: Array, after: Mark) -> Mark:
        self._reject_in_capture("copies from the host")
        with self._here():
            self._copies.wait_event(after)
            kind = cupy.cuda.runtime.memcpyHostToDevice
            cupy.cuda.runtime.memcpyAsync(out.data.ptr, pinned.ctypes.data, out.nbytes, kind, self._copies.ptr)
            arrived = cupy.cuda.Event(disable_timing=True)
            arrived.record(self._copies)
            self._stream.wait_event(arrived)
            return arrived

    def wait(self, mark: Mark) -> None:
        self._reject_in_capture("waits for the device")
        # Without the lock, so that other threads can start work.
        with cupy.cuda.Device(self._number):
            mark.synchronize()

    @contextmanager
    def active(self) -> Iterator[None]:
        with self._here(), self._stream:
            yield

    def synchronize(self) -> None:
        self._reject_in_capture("waits for the device")
        with self._here():
            self._stream.synchronize()

    def load(self, source: str, options: Sequence[str]) -> CudaModule:
        self._reject_in_capture("compiles a kernel")
        return CudaModule(source, options, self)

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        """Capture, without garbage collections: the destruction of an old handle may wait for the device, which would
        break the capture.

        Other libraries in this process may break it in the same way, so it is tried twice if the driver ends it.
        """
        with self.active(), without_collections():
            gc.collect()
            try:
                return self._capture(work)
            except CaptureError as error:
                # Our own rejections would be the same.
                if error.__cause__ is None or isinstance(error.__cause__, CaptureError):
                    raise
                _log.info("a capture failed and is tried again: %s", error)
            return self._capture(work)

    def _capture(self, work: Callable[[], None]) -> CudaGraph:
        try:
            self._stream.begin_capture()
        except Exception as error:  # such as HIP, for which CuPy has no graphs
            raise CaptureError(str(error)) from error
        self._capturing = threading.get_ident()
        try:
            work()
        except Exception as error:
            # The stream is unusable until the capture ends, even if it ends with an error.
            with suppress(Exception):
                self._stream.end_capture()
            raise CaptureError(str(error)) from error
        finally:
            self._capturing = None
        try:
            graph = self._stream.end_capture()
            graph.upload(self._stream)
        except Exception as error:
            raise CaptureError(str(error)) from error
        return CudaGraph(graph, self)

    def _reject_in_capture(self, what: str) -> None:
        """Raise if this thread is capturing: the driver would abort the capture, or run the work outside the graph."""
        if self._capturing == threading.get_ident():
            raise CaptureError(f"it {what}")

    def launch(
        self,
        kernel: Kernel,
        grid: Dimensions,
        block: Dimensions,
        arguments: Sequence[Argument],
        shared_bytes: int = 0,
    ) -> None:
        with self._here():
            kernel(grid, block, tuple(arguments), shared_mem=shared_bytes, stream=self._stream)

    def allow_tf32(self, allow: bool) -> None:
        self._tf32 = allow
        with self._here():
            self._cublas.allow_tf32(allow)

    def gemm(self, operands: Operands) -> None:
        with self._here():
            self._cublas.gemm(
                operands.c.dtype,
                operands.transpose_a, operands.transpose_b, operands.m, operands.n, operands.k,
                1.0, operands.a.data.ptr, operands.lda, operands.b.data.ptr, operands.ldb,
                float(operands.adds), operands.c.data.ptr, operands.ldc,
            )  # fmt: skip

    def product(self, operands: Operands, epilogue: Epilogue) -> CudaProduct | None:
        self._reject_in_capture("chooses an algorithm")
        with self._here():
            if self._cublaslt is None:
                return None
            mask = 0 if epilogue.mask is None else epilogue.mask.data.ptr
            plan = self._cublaslt.plan(
                operands, epilogue.kind, epilogue.bias.data.ptr, mask, epilogue.mask_stride, self._tf32
            )
            if plan is None or not self._works(plan, operands, epilogue):
                return None
            return CudaProduct(plan, operands, epilogue, self)

    def _works(self, plan: Plan, operands: Operands, epilogue: Epilogue) -> bool:
        """Whether the library computes the product at all, and ReLU and its derivative propagate NaN.

        The documentation doesn't say what they do with NaN; if they dropped it, divergence would go unnoticed. This
        overwrites the result and the mask, which have not been computed yet, so a product that is added to something is
        not tried.
        """
        if operands.adds:
            return True
        rectifies = epilogue.kind.startswith(("relu", "drelu"))
        bias = self.read(epilogue.bias)
        if epilogue.mask is not None:
            # The derivative is 0 everywhere.
            self.write(np.zeros(epilogue.mask.shape, np.uint8), epilogue.mask)
        try:
            plan.launch(math.nan if rectifies else 1.0)
            # Rows of C may be padded, for which nothing is computed.
            result = self.read(operands.c)[:, : operands.m]
        except CublasError as error:
            _log.info("products have no epilogue %r on %s: %s", epilogue.kind, self.device, error)
            return False
        finally:
            self.write(bias, epilogue.bias)
        if rectifies and not np.isnan(result).all():
            _log.info("products have no epilogue %r on %s: it replaces NaN", epilogue.kind, self.device)
            return False
        return True

    @cached_property
    def _cublaslt(self) -> CublasLt | None:
        """Created on first use. None if cuBLASLt is unavailable, which makes steps slower but still possible."""
        try:
            return CublasLt(load_cublaslt(), self._stream.ptr, self._workspace.data.ptr, WORKSPACE_BYTES)
        except (OSError, ImportError, RuntimeError) as error:
            _log.info("products have no epilogues on %s: %s", self.device, error)
            return None

    @contextmanager
    def _here(self) -> Iterator[None]:
        """Make this runtime's device current temporarily, because the caller may have selected another one."""
        with self._lock, cupy.cuda.Device(self._number):
            yield

    def _copy(self, to: int, out: Any, start: int, source: Any, kind: int) -> None:
        """Copy bytes between the given addresses; the two arrays, of the same shape, describe the layouts."""
        stream = self._stream.ptr
        if out.flags.c_contiguous and source.flags.c_contiguous:
            cupy.cuda.runtime.memcpyAsync(to, start, out.nbytes, kind, stream)
            return
        rows, columns = out.shape
        width = columns * out.itemsize
        cupy.cuda.runtime.memcpy2DAsync(to, _pitch(out), start, _pitch(source), width, rows, kind, stream)


def _pitch(array: Any) -> int:
    """Bytes from one row to the next. A single row may report any stride, but CUDA rejects one below the width."""
    return max(int(array.strides[0]), int(array.shape[1] * array.itemsize))


def use_device(number: int) -> None:
    """Make a GPU the current one of this thread, before anything touches another.

    It is not a context that restores the previous one, because that would already take memory of it.
    """
    cupy.cuda.Device(number).use()


def device_count() -> int:
    """The number of GPUs visible to this process."""
    return int(cupy.cuda.runtime.getDeviceCount())
