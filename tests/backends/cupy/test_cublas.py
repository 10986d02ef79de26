"""The cuBLAS binding: its types against the documentation, and its calls against a library with the same interface."""

from __future__ import annotations

import ctypes
import gc
import importlib
import subprocess
from ctypes import POINTER, c_double, c_float, c_int, c_size_t, c_void_p
from types import SimpleNamespace

import numpy as np
import pytest

from nnbackend.backends.cupy import cublas
from tests.backends.cupy.build import compiler

# As in the cuBLAS documentation, sections 2.4 (helper functions) and 2.7.1 (gemm).
DOCUMENTED = {
    "cublasCreate_v2": "cublasHandle_t *handle",
    "cublasDestroy_v2": "cublasHandle_t handle",
    "cublasSetStream_v2": "cublasHandle_t handle, cudaStream_t streamId",
    "cublasSetWorkspace_v2": "cublasHandle_t handle, void *workspace, size_t workspaceSizeInBytes",
    "cublasSetMathMode": "cublasHandle_t handle, cublasMath_t mode",
    "cublasSetPointerMode_v2": "cublasHandle_t handle, cublasPointerMode_t mode",
    "cublasSetAtomicsMode": "cublasHandle_t handle, cublasAtomicsMode_t mode",
    "cublasSgemm_v2": "cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k, "
    "const float *alpha, const float *A, int lda, const float *B, int ldb, const float *beta, float *C, int ldc",
    "cublasDgemm_v2": "cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k, "
    "const double *alpha, const double *A, int lda, const double *B, int ldb, const double *beta, double *C, int ldc",
}
# Scalars are on the host and passed by reference; matrices are device addresses.
TYPES = {
    "cublasHandle_t *": POINTER(c_void_p),
    "cublasHandle_t": c_void_p,
    "cudaStream_t": c_void_p,
    "void *": c_void_p,
    "size_t": c_size_t,
    "int": c_int,
    **dict.fromkeys(("cublasOperation_t", "cublasMath_t", "cublasPointerMode_t", "cublasAtomicsMode_t"), c_int),
}


def _c_type(parameter: str):
    kind, name = parameter.strip().rsplit(" ", 1)
    if name.startswith("*"):
        kind, name = f"{kind} *", name[1:]
    if name in ("alpha", "beta"):
        return {"const float *": POINTER(c_float), "const double *": POINTER(c_double)}[kind]
    return c_void_p if name in ("A", "B", "C") else TYPES[kind]


def test_argument_types_are_the_documented_ones():
    documented = {name: tuple(map(_c_type, text.split(","))) for name, text in DOCUMENTED.items()}
    assert documented == cublas.PROTOTYPES


def test_enumerations_have_the_documented_values():
    """cublasOperation_t, cublasMath_t, cublasPointerMode_t, cublasAtomicsMode_t, cublasStatus_t."""
    assert (cublas.OP_N, cublas.OP_T) == (0, 1)
    assert (cublas.DEFAULT_MATH, cublas.POINTER_MODE_HOST, cublas.ATOMICS_NOT_ALLOWED) == (0, 0, 0)
    assert cublas.TF32_TENSOR_OP_MATH == 3
    documented = {
        "NOT_INITIALIZED": 1,
        "ALLOC_FAILED": 3,
        "INVALID_VALUE": 7,
        "ARCH_MISMATCH": 8,
        "MAPPING_ERROR": 11,
        "EXECUTION_FAILED": 13,
        "INTERNAL_ERROR": 14,
        "NOT_SUPPORTED": 15,
        "LICENSE_ERROR": 16,
    }
    assert {f"CUBLAS_STATUS_{name}": value for name, value in documented.items()} == {
        name: value for value, name in cublas.STATUS_NAMES.items()
    }


def test_missing_library_lists_the_searched_places(monkeypatch):
    def not_found(name):
        raise RuntimeError(f"Failure finding lib{name}.so.13: looked in /usr/lib")

    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(load_nvidia_dynamic_lib=not_found))
    with pytest.raises(RuntimeError, match=r"libcublas\.so\.13: looked in"):
        cublas.load_cublas()


def test_library_is_opened_where_it_was_found(library, monkeypatch):
    found = SimpleNamespace(load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path=library._name))
    monkeypatch.setattr(importlib, "import_module", lambda _: found)
    assert cublas.load_cublas().cublasSgemm_v2


# ---- a library with cuBLAS's interface -------------------------------------------------------------------------------

STAND_IN = r"""
#include <stddef.h>
struct State { void *stream, *workspace; size_t bytes; int math, pointer_mode, atomics, alive, fail; };
extern "C" { State state; }
extern "C" int cublasCreate_v2(State** handle) { state = State{0, 0, 0, 9, 9, 9, 1, 0}; *handle = &state; return 0; }
extern "C" int cublasDestroy_v2(State* h) { h->alive = 0; return 0; }
// As documented: this puts the handle back on the default workspace.
extern "C" int cublasSetStream_v2(State* h, void* s) { h->stream = s; h->workspace = 0; h->bytes = 0; return 0; }
extern "C" int cublasSetWorkspace_v2(State* h, void* w, size_t n) { h->workspace = w; h->bytes = n; return 0; }
extern "C" int cublasSetMathMode(State* h, int m) { h->math = m; return 0; }
extern "C" int cublasSetPointerMode_v2(State* h, int m) { h->pointer_mode = m; return 0; }
extern "C" int cublasSetAtomicsMode(State* h, int m) { h->atomics = m; return 0; }
template <typename T>
int gemm(State* h, int ta, int tb, int m, int n, int k, const T* alpha, const T* A, int lda, const T* B, int ldb,
         const T* beta, T* C, int ldc) {
    if (h != &state || !h->alive) return 1;
    if (h->fail) return h->fail;
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
            T sum = 0;
            for (int l = 0; l < k; ++l)
                sum += (ta ? A[i * (size_t)lda + l] : A[l * (size_t)lda + i]) *
                       (tb ? B[l * (size_t)ldb + j] : B[j * (size_t)ldb + l]);
            T& c = C[j * (size_t)ldc + i];
            c = *beta == 0 ? *alpha * sum : *alpha * sum + *beta * c;
        }
    return 0;
}
extern "C" int cublasSgemm_v2(State* h, int ta, int tb, int m, int n, int k, const float* alpha, const float* A,
                              int lda, const float* B, int ldb, const float* beta, float* C, int ldc) {
    return gemm(h, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}
extern "C" int cublasDgemm_v2(State* h, int ta, int tb, int m, int n, int k, const double* alpha, const double* A,
                              int lda, const double* B, int ldb, const double* beta, double* C, int ldc) {
    return gemm(h, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}
"""


class State(ctypes.Structure):
    """The stand-in's handle."""

    _fields_ = (
        ("stream", c_void_p),
        ("workspace", c_void_p),
        ("bytes", c_size_t),
        ("math", c_int),
        ("pointer_mode", c_int),
        ("atomics", c_int),
        ("alive", c_int),
        ("fail", c_int),
    )


def build_stand_in(folder) -> ctypes.CDLL:
    """A library with cuBLAS's interface that works on host memory."""
    (folder / "cublas.cpp").write_text(STAND_IN)
    command = [compiler(), "-O1", "-shared", "-fPIC", "-Wl,-Bsymbolic", "cublas.cpp", "-o", "libcublas.so"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "libcublas.so"))


@pytest.fixture(scope="module")
def library(needs_compiler, tmp_path_factory):
    return build_stand_in(tmp_path_factory.mktemp("cublas"))


def test_a_handle_is_set_up_for_repeatable_float32(library):
    handle = cublas.Cublas(library, 0x1230, 0x4560, 789)
    state = State.in_dll(library, "state")
    assert (state.stream, state.workspace, state.bytes) == (0x1230, 0x4560, 789)
    assert (state.math, state.pointer_mode, state.atomics) == (0, 0, 0)
    assert state.alive
    del handle
    gc.collect()
    assert not state.alive


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_gemm(library, dtype, transpose_a, transpose_b):
    rng = np.random.default_rng(0)
    m, n, k, lda, ldb, ldc = 3, 4, 5, 7, 8, 9
    a = rng.standard_normal((m if transpose_a else k, lda)).astype(dtype)  # column by column, lda apart
    b = rng.standard_normal((k if transpose_b else n, ldb)).astype(dtype)
    c = rng.standard_normal((n, ldc)).astype(dtype)
    left = a[:, :k] if transpose_a else a[:, :m].T
    right = b[:, :n] if transpose_b else b[:, :k].T
    expected = c.copy()
    expected[:, :m] = (2 * (left @ right) + 0.5 * c[:, :m].T).T
    handle = cublas.Cublas(library, 0, 0, 0)
    addresses = [array.ctypes.data for array in (a, b, c)]
    handle.gemm(
        c.dtype, transpose_a, transpose_b, m, n, k, 2.0, addresses[0], lda, addresses[1], ldb, 0.5, addresses[2], ldc
    )
    np.testing.assert_allclose(c, expected, rtol=1e-5)


def test_a_failed_status_is_named(library):
    handle = cublas.Cublas(library, 0, 0, 0)
    State.in_dll(library, "state").fail = 13
    with pytest.raises(cublas.CublasError, match=r"cublasSgemm_v2 failed: CUBLAS_STATUS_EXECUTION_FAILED \(13\)"):
        handle.gemm(np.dtype(np.float32), False, False, 1, 1, 1, 1.0, 0, 1, 0, 1, 0.0, 0, 1)
