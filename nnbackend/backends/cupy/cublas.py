"""The few cuBLAS functions the backend needs, bound with their types.

CuPy's own products cannot be captured in a CUDA graph; these can, because the handle has a stream and a workspace
of its own. With one stream and one workspace, cuBLAS repeats its results bit for bit (cuBLAS documentation,
"Results Reproducibility").
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

#: What NVIDIA recommends for Hopper; older devices ask for less.
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
    """A cuBLAS function reported failure."""


def load_cublas() -> ctypes.CDLL:
    """The cuBLAS library of this process, found where CuPy finds it.

    Raises
    ------
    OSError, RuntimeError or ImportError
        If there is none; the message says where it was looked for.
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
        Address of `workspace_bytes` bytes of device memory, which the handle uses as long as it lives.
    """

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int, workspace_bytes: int) -> None:
        self._functions = {name: bind(library, name, PROTOTYPES[name]) for name in PROTOTYPES}
        handle = c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(handle))
        self._handle = handle
        # At interpreter exit the driver is going away itself.
        weakref.finalize(self, self._functions["cublasDestroy_v2"], handle).atexit = False
        self._call("cublasSetStream_v2", handle, stream)
        # After the stream: setting a stream puts the handle back on cuBLAS's own pool of workspaces.
        self._call("cublasSetWorkspace_v2", handle, workspace, workspace_bytes)
        # These are the defaults, said aloud: float32 products in float32 and not TF32, alpha and beta on the host, and
        # no sums whose order changes from run to run.
        self._call("cublasSetMathMode", handle, DEFAULT_MATH)
        self._call("cublasSetPointerMode_v2", handle, POINTER_MODE_HOST)
        self._call("cublasSetAtomicsMode", handle, ATOMICS_NOT_ALLOWED)

    def allow_tf32(self, allow: bool) -> None:
        """Whether products of float32 may round their factors to 10 bits, for the tensor cores."""
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
        """``C = alpha op(A) op(B) + beta C``, stored by columns; `a`, `b` and `c` are device addresses."""
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
    """A function of a library that takes these types and returns a status."""
    # A function object of our own: what another user of the library sets on theirs does not matter here.
    return ctypes.CFUNCTYPE(c_int, *types)((name, library))


@lru_cache(maxsize=64)
def constant(scalar: Any, value: float) -> Any:
    """A pointer to a host scalar, made once."""
    return ctypes.pointer(scalar(value))
