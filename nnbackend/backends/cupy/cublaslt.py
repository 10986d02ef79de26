"""ctypes bindings of cuBLASLt: matrix products with epilogues.

cuBLASLt's heuristic selects an algorithm from sizes and alignments alone, so it selects the same one in every run.
Algorithms that add partial sums in varying order are excluded.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

import numpy as np

from nnbackend.backends.cupy.cublas import OP_N, OP_T, STATUS_NAMES, CublasError, bind, constant
from nnbackend.backends.cupy.interface import Operands

__all__ = ["EPILOGUES", "PROTOTYPES", "CublasLt", "HeuristicResult", "Plan", "load_cublaslt"]

#: Values of cublasLtEpilogue_t: what is done to the result before it is written.
EPILOGUES = {
    "bias": 4,  # BIAS
    "relu_bias": 4 | 2,  # RELU_BIAS
    "relu_aux_bias": 4 | 2 | 128,  # RELU_AUX_BIAS: also writes a bit for each element: whether it was above zero
    "drelu_bgrad": 8 | 128 | 16,  # DRELU_BGRAD: zero where the bit is not set; sums over columns
    "bgrada": 256,  # BGRADA: sums of the left factor over k
}
#: Epilogues that read or write the bit mask.
_MASKED = ("relu_aux_bias", "drelu_bgrad")

# Values of other enumerations in cublasLt.h, cublas_api.h and library_types.h.
COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F = 68, 77, 70
CUDA_R_32F, CUDA_R_64F = 0, 1
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER = 3, 4, 7, 8
DESC_EPILOGUE_AUX_POINTER, DESC_EPILOGUE_AUX_LD = 11, 12
PREF_MAX_WORKSPACE_BYTES, PREF_REDUCTION_SCHEME_MASK = 1, 3
PREF_MIN_ALIGNMENT_BYTES = (5, 6, 7, 8)  # of A, B, C and D
#: Reduction schemes that add partial sums in a fixed order, in the type of the sums or of the result.
REDUCTIONS_IN_ORDER = 2 | 4

#: The largest alignment that cuBLASLt distinguishes.
_MOST_ALIGNED = 256


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t; it begins with the algorithm."""

    _fields_ = (
        ("algo", c_uint64 * 8),
        ("workspace_bytes", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


_DESCRIPTOR = POINTER(c_void_p)

#: Argument types by function; each returns a status.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cublasLtCreate": (_DESCRIPTOR,),
    "cublasLtDestroy": (c_void_p,),
    "cublasLtMatmulDescCreate": (_DESCRIPTOR, c_int, c_int),
    "cublasLtMatmulDescDestroy": (c_void_p,),
    "cublasLtMatmulDescSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "cublasLtMatrixLayoutCreate": (_DESCRIPTOR, c_int, c_uint64, c_uint64, c_int64),
    "cublasLtMatrixLayoutDestroy": (c_void_p,),
    "cublasLtMatmulPreferenceCreate": (_DESCRIPTOR,),
    "cublasLtMatmulPreferenceDestroy": (c_void_p,),
    "cublasLtMatmulPreferenceSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "cublasLtMatmulAlgoGetHeuristic": (*(c_void_p,) * 7, c_int, POINTER(HeuristicResult), POINTER(c_int)),
    "cublasLtMatmul": (*(c_void_p,) * 14, c_size_t, c_void_p),
}


def load_cublaslt() -> ctypes.CDLL:
    """The cuBLASLt library, which comes with cuBLAS. Raises the same errors as :func:`load_cublas`."""
    found = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublasLt")
    return ctypes.CDLL(found.abs_path or "libcublasLt.so")


class CublasLt:
    """A cuBLASLt handle, the stream its products go to, and their workspace.

    Parameters
    ----------
    library : CDLL
        As from :func:`load_cublaslt`.
    stream, workspace : int
        Addresses, as for :class:`Cublas`. It may share the workspace of a cuBLAS handle on the same stream.
    workspace_bytes : int
    """

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int, workspace_bytes: int) -> None:
        self._functions = {name: bind(library, name, PROTOTYPES[name]) for name in PROTOTYPES}
        self.stream, self.workspace, self.workspace_bytes = stream, workspace, workspace_bytes
        self.handle = self.create("cublasLtCreate", "cublasLtDestroy", self)

    def plan(
        self, operands: Operands, epilogue: str, bias: int, mask: int, mask_stride: int, tf32: bool
    ) -> Plan | None:
        """A plan for a product with an epilogue, or None if cuBLASLt does not support it for these operands.

        Parameters
        ----------
        operands : Operands
        epilogue : str
            A key of `EPILOGUES`.
        bias, mask : int
            Device addresses; the mask's is 0 if the epilogue has none.
        mask_stride : int
            Bits from one column of the mask to the next.
        tf32 : bool
            Whether factors of float32 may be rounded to TF32.
        """
        plan = Plan(self, operands, epilogue, bias, mask, mask_stride, tf32)
        return plan if plan.found else None

    def create(self, function: str, destroy: str, owner: Any, *arguments: Any) -> c_void_p:
        """A new library object, destroyed with its owner except at interpreter exit, when the driver may already be
        unloaded."""
        created = c_void_p()
        self.call(function, ctypes.byref(created), *arguments)
        weakref.finalize(owner, self._functions[destroy], created).atexit = False
        return created

    def call(self, name: str, *arguments: Any) -> None:
        if status := self._functions[name](*arguments):
            raise CublasError(f"{name} failed: {STATUS_NAMES.get(status, 'status')} ({status})")

    def asked(self, name: str, *arguments: Any) -> bool:
        """Call a function that may fail; returns whether it succeeded."""
        return not self._functions[name](*arguments)


class Plan:
    """One product with an epilogue, for fixed buffers."""

    def __init__(
        self, library: CublasLt, operands: Operands, epilogue: str, bias: int, mask: int, mask_stride: int, tf32: bool
    ) -> None:
        self._library = library
        single = operands.c.dtype == np.float32
        kind = CUDA_R_32F if single else CUDA_R_64F
        compute = (COMPUTE_32F_FAST_TF32 if tf32 else COMPUTE_32F) if single else COMPUTE_64F
        self._description = library.create("cublasLtMatmulDescCreate", "cublasLtMatmulDescDestroy", self, compute, kind)
        self._set(DESC_TRANSA, c_int32(OP_T if operands.transpose_a else OP_N))
        self._set(DESC_TRANSB, c_int32(OP_T if operands.transpose_b else OP_N))
        self._set(DESC_EPILOGUE, c_uint32(EPILOGUES[epilogue]))
        self._set(DESC_BIAS_POINTER, c_void_p(bias))
        if epilogue in _MASKED:
            self._set(DESC_EPILOGUE_AUX_POINTER, c_void_p(mask))
            self._set(DESC_EPILOGUE_AUX_LD, c_int64(mask_stride))
        self._addresses = [array.data.ptr for array in (operands.a, operands.b, operands.c)]
        layouts = [
            library.create("cublasLtMatrixLayoutCreate", "cublasLtMatrixLayoutDestroy", self, kind, *extents)
            for extents in operands.extents()
        ]
        self._scalar = c_float if single else c_double
        beta = constant(self._scalar, float(operands.adds))
        a, b, c = self._addresses
        left, right, out = layouts
        self._algorithm = HeuristicResult()
        self._arguments = (
            a, left, b, right, beta, c, out, c, out,
            ctypes.byref(self._algorithm), library.workspace, library.workspace_bytes, library.stream,
        )  # fmt: skip
        #: Whether cuBLASLt has an algorithm for it.
        self.found = self._choose(left, right, out)

    def launch(self, factor: float = 1.0) -> None:
        """Enqueue the product on the stream, multiplied by a factor before the epilogue."""
        alpha = constant(self._scalar, factor)
        self._library.call("cublasLtMatmul", self._library.handle, self._description, alpha, *self._arguments)

    def _set(self, attribute: int, value: Any) -> None:
        size = ctypes.sizeof(value)
        self._library.call("cublasLtMatmulDescSetAttribute", self._description, attribute, ctypes.byref(value), size)

    def _choose(self, left: c_void_p, right: c_void_p, out: c_void_p) -> bool:
        """Ask the heuristic for the best algorithm."""
        library = self._library
        preference = library.create("cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceDestroy", self)
        a, b, c = self._addresses
        wishes: list[tuple[int, Any]] = [
            (PREF_MAX_WORKSPACE_BYTES, c_uint64(library.workspace_bytes)),
            (PREF_REDUCTION_SCHEME_MASK, c_uint32(REDUCTIONS_IN_ORDER)),
            *(
                (wish, c_uint32(_alignment(at)))
                for wish, at in zip(PREF_MIN_ALIGNMENT_BYTES, (a, b, c, c), strict=True)
            ),
        ]
        for attribute, value in wishes:
            size = ctypes.sizeof(value)
            library.call("cublasLtMatmulPreferenceSetAttribute", preference, attribute, ctypes.byref(value), size)
        found = c_int()
        answered = library.asked(
            "cublasLtMatmulAlgoGetHeuristic",
            library.handle, self._description, left, right, out, out, preference,
            1, ctypes.byref(self._algorithm), ctypes.byref(found),
        )  # fmt: skip
        return answered and found.value == 1 and self._algorithm.state == 0


def _alignment(address: int) -> int:
    """The largest power of two that divides the address, up to the limit."""
    return min(address & -address, _MOST_ALIGNED) or _MOST_ALIGNED
