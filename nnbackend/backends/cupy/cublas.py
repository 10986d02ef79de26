"""ctypes bindings of the few cuBLAS functions that the backend needs.

CuPy's own products cannot be captured in a CUDA graph. These can, because the handle has its own stream and workspace.
With one stream and one workspace, cuBLAS results are reproducible bit for bit (cuBLAS documentation, "Results
Reproducibility").
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from ctypes import POINTER, c_double, c_float, c_int, c_size_t, c_void_p
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["PROTOTYPES", "WORKSPACE_BYTES", "Cublas", "CublasError", "bind", "constant", "load_cublas"]

# Values of the enumerations in cublas_api.h.
OP_N, OP_T = 0, 1
DEFAULT_MATH = 0
TF32_TENSOR_OP_MATH = 3
POINTER_MODE_HOST = 0
ATOMICS_NOT_ALLOWED = 0
STATUS_NAMES = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED",
    3: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR",
    13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED",
    16: "CUBLAS_STATUS_LICENSE_ERROR",
}

#: NVIDIA's recommendation for Hopper; older devices need less.
WORKSPACE_BYTES = 32 << 20


def _gemm(real: type) -> tuple[Any, ...]:
    """handle, transa, transb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc."""
    sizes = (c_int, c_int, c_int, c_int, c_int)
    return (c_void_p, *sizes, POINTER(real), c_void_p, c_int, c_void_p, c_int, POINTER(real), c_void_p, c_int)


#: Argument types by function; each returns a status.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (POINTER(c_void_p),),
    "cublasDestroy_v2": (c_void_p,),
    "cublasSetStream_v2": (c_void_p, c_void_p),
    "cublasSetWorkspace_v2": (c_void_p, c_void_p, c_size_t),
    "cublasSetMathMode": (c_void_p, c_int),
    "cublasSetPointerMode_v2": (c_void_p, c_int),
    "cublasSetAtomicsMode": (c_void_p, c_int),
    "cublasSgemm_v2": _gemm(c_float),
    "cublasDgemm_v2": _gemm(c_double),
}


class CublasError(RuntimeError):
    """A cuBLAS function failed."""


def load_cublas() -> ctypes.CDLL:
    """The cuBLAS library that CuPy uses.

    Raises
    ------
    OSError, RuntimeError or ImportError
        The library was not found; the message lists the places searched.
    """
    found = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas")
    return ctypes.CDLL(found.abs_path or "libcublas.so")


class Cublas:
    """A cuBLAS handle.

    Parameters
    ----------
    library : CDLL
        As from :func:`load_cublas`.
    stream : int
        Address of the CUDA stream that products go to.
    workspace : int
        Address of `workspace_bytes` bytes of device memory, used for the lifetime of the handle.
    """

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int, workspace_bytes: int) -> None:
        self._functions = {name: bind(library, name, PROTOTYPES[name]) for name in PROTOTYPES}
        handle = c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(handle))
        self._handle = handle
        # Not at interpreter exit, when the driver may already be unloaded.
        weakref.finalize(self, self._functions["cublasDestroy_v2"], handle).atexit = False
        self._call("cublasSetStream_v2", handle, stream)
        # After the stream: setting a stream resets the workspace to cuBLAS's own pool.
        self._call("cublasSetWorkspace_v2", handle, workspace, workspace_bytes)
        # The defaults, made explicit: float32 products in float32, not TF32; alpha and beta on the host; no sums whose
        # order varies between runs.
        self._call("cublasSetMathMode", handle, DEFAULT_MATH)
        self._call("cublasSetPointerMode_v2", handle, POINTER_MODE_HOST)
        self._call("cublasSetAtomicsMode", handle, ATOMICS_NOT_ALLOWED)

    def allow_tf32(self, allow: bool) -> None:
        """Allow or forbid rounding the factors of float32 products to TF32 (10 bits), for tensor cores."""
        self._call("cublasSetMathMode", self._handle, TF32_TENSOR_OP_MATH if allow else DEFAULT_MATH)

    def gemm(
        self,
        real: np.dtype[Any],
        transpose_a: bool,
        transpose_b: bool,
        m: int,
        n: int,
        k: int,
        alpha: float,
        a: int,
        lda: int,
        b: int,
        ldb: int,
        beta: float,
        c: int,
        ldc: int,
    ) -> None:
        """``C = alpha op(A) op(B) + beta C``, in column-major order; `a`, `b` and `c` are device addresses."""
        name, scalar = ("cublasSgemm_v2", c_float) if real == np.float32 else ("cublasDgemm_v2", c_double)
        self._call(
            name,
            self._handle,
            OP_T if transpose_a else OP_N,
            OP_T if transpose_b else OP_N,
            m, n, k,
            constant(scalar, alpha), a, lda, b, ldb,
            constant(scalar, beta), c, ldc,
        )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> None:
        status = self._functions[name](*arguments)
        if status:
            raise CublasError(f"{name} failed: {STATUS_NAMES.get(status, 'status')} ({status})")


def bind(library: ctypes.CDLL, name: str, types: tuple[Any, ...]) -> Any:
    """A library function with these argument types that returns a status."""
    # A separate function object, so that other users of the library cannot change its types.
    return ctypes.CFUNCTYPE(c_int, *types)((name, library))


@lru_cache(maxsize=64)
def constant(scalar: Any, value: float) -> Any:
    """A pointer to a host scalar (cached)."""
    return ctypes.pointer(scalar(value))
