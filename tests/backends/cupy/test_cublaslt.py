"""The cuBLASLt binding: its types against the header, and its calls against a library with the same interface."""

from __future__ import annotations

import ctypes
import gc
import re
import subprocess
from ctypes import POINTER, c_int, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnbackend.backends.cupy import cublas, cublaslt
from nnbackend.backends.cupy.interface import Epilogue, Operands
from tests.backends.cupy.build import compiler
from tests.backends.cupy.emulator import EmulatedRuntime

# As in cublasLt.h 13.
DOCUMENTED = {
    "cublasLtCreate": "cublasLtHandle_t* lightHandle",
    "cublasLtDestroy": "cublasLtHandle_t lightHandle",
    "cublasLtMatmulDescCreate": "cublasLtMatmulDesc_t* matmulDesc, cublasComputeType_t computeType, "
    "cudaDataType_t scaleType",
    "cublasLtMatmulDescDestroy": "cublasLtMatmulDesc_t matmulDesc",
    "cublasLtMatmulDescSetAttribute": "cublasLtMatmulDesc_t matmulDesc, cublasLtMatmulDescAttributes_t attr, "
    "const void* buf, size_t sizeInBytes",
    "cublasLtMatrixLayoutCreate": "cublasLtMatrixLayout_t* matLayout, cudaDataType type, uint64_t rows, uint64_t cols, "
    "int64_t ld",
    "cublasLtMatrixLayoutDestroy": "cublasLtMatrixLayout_t matLayout",
    "cublasLtMatmulPreferenceCreate": "cublasLtMatmulPreference_t* pref",
    "cublasLtMatmulPreferenceDestroy": "cublasLtMatmulPreference_t pref",
    "cublasLtMatmulPreferenceSetAttribute": "cublasLtMatmulPreference_t pref, "
    "cublasLtMatmulPreferenceAttributes_t attr, const void* buf, size_t sizeInBytes",
    "cublasLtMatmulAlgoGetHeuristic": "cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc, "
    "cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc, cublasLtMatrixLayout_t Cdesc, "
    "cublasLtMatrixLayout_t Ddesc, cublasLtMatmulPreference_t preference, int requestedAlgoCount, "
    "cublasLtMatmulHeuristicResult_t heuristicResultsArray[], int* returnAlgoCount",
    "cublasLtMatmul": "cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t computeDesc, const void* alpha, "
    "const void* A, cublasLtMatrixLayout_t Adesc, const void* B, cublasLtMatrixLayout_t Bdesc, const void* beta, "
    "const void* C, cublasLtMatrixLayout_t Cdesc, void* D, cublasLtMatrixLayout_t Ddesc, "
    "const cublasLtMatmulAlgo_t* algo, void* workspace, size_t workspaceSizeInBytes, cudaStream_t stream",
}
#: Enumerators, and their names here.
ENUMERATORS = {
    "CUBLASLT_MATMUL_DESC_TRANSA": cublaslt.DESC_TRANSA,
    "CUBLASLT_MATMUL_DESC_TRANSB": cublaslt.DESC_TRANSB,
    "CUBLASLT_MATMUL_DESC_EPILOGUE": cublaslt.DESC_EPILOGUE,
    "CUBLASLT_MATMUL_DESC_BIAS_POINTER": cublaslt.DESC_BIAS_POINTER,
    "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER": cublaslt.DESC_EPILOGUE_AUX_POINTER,
    "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD": cublaslt.DESC_EPILOGUE_AUX_LD,
    "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES": cublaslt.PREF_MAX_WORKSPACE_BYTES,
    "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK": cublaslt.PREF_REDUCTION_SCHEME_MASK,
    "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES": cublaslt.PREF_MIN_ALIGNMENT_BYTES[0],
    "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES": cublaslt.PREF_MIN_ALIGNMENT_BYTES[1],
    "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES": cublaslt.PREF_MIN_ALIGNMENT_BYTES[2],
    "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES": cublaslt.PREF_MIN_ALIGNMENT_BYTES[3],
    "CUBLAS_COMPUTE_32F": cublaslt.COMPUTE_32F,
    "CUBLAS_COMPUTE_32F_FAST_TF32": cublaslt.COMPUTE_32F_FAST_TF32,
    "CUBLAS_COMPUTE_64F": cublaslt.COMPUTE_64F,
}


def _c_type(parameter: str):
    kind, name = re.fullmatch(r"\s*(.*?[\s*])(\w+(?:\[\])?)\s*", parameter).groups()
    kind = kind.strip()
    if name.endswith("[]"):
        return POINTER(cublaslt.HeuristicResult)
    if kind in ("int*", "int"):
        return POINTER(c_int) if kind == "int*" else c_int
    if kind in ("uint64_t", "int64_t", "size_t"):
        return {"uint64_t": c_uint64, "int64_t": c_int64, "size_t": c_size_t}[kind]
    if kind.endswith("*"):
        # The library returns new objects through a pointer; everything else is memory.
        return POINTER(c_void_p) if kind.startswith("cublasLt") else c_void_p
    if kind.endswith(("Type", "Type_t", "Attributes_t")):
        return c_int
    return c_void_p


def test_argument_types_are_the_documented_ones():
    documented = {name: tuple(map(_c_type, text.split(","))) for name, text in DOCUMENTED.items()}
    assert documented == cublaslt.PROTOTYPES
    # sizeof(cublasLtMatmulHeuristicResult_t)
    assert ctypes.sizeof(cublaslt.HeuristicResult) == 96


def _header(name: str) -> str:
    """A header of cuBLAS, where one is beside the library."""
    try:
        library = Path(cublaslt.load_cublaslt()._name)
    except (OSError, RuntimeError, ImportError) as error:
        pytest.skip(f"needs cuBLASLt: {str(error).splitlines()[0]}")
    found = [folder / "include" / name for folder in library.parents[1:3] if (folder / "include" / name).exists()]
    if not found:
        pytest.skip(f"no {name} beside {library.name}")
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", found[0].read_text(), flags=re.DOTALL)


def test_the_installed_header_agrees():
    texts = {name: " ".join(_header(name).split()) for name in ("cublasLt.h", "cublas_api.h")}
    for name, parameters in DOCUMENTED.items():
        declared = re.search(rf"\b{name}\((.*?)\);", texts["cublasLt.h"]).group(1)
        assert re.sub(r"\s", "", declared) == re.sub(r"\s", "", parameters), name
    for name, value in ENUMERATORS.items():
        text = texts["cublasLt.h" if "LT" in name else "cublas_api.h"]
        assert re.search(rf"\b{name} = (\d+)", text).group(1) == str(value), name
    for name, value in cublaslt.EPILOGUES.items():
        written = re.search(rf"\bCUBLASLT_EPILOGUE_{name.upper()} = (.*?),", texts["cublasLt.h"]).group(1)
        while names := re.findall(r"CUBLASLT_EPILOGUE_\w+", written):
            for other in names:
                meant = re.search(rf"\b{other} = (.*?),", texts["cublasLt.h"]).group(1)
                written = written.replace(other, f"({meant})", 1)
        assert eval(written) == value, name


def test_the_installed_library_takes_every_attribute():
    """Descriptors need no device, and reject wrong sizes and numbers of attributes."""
    _header("cublasLt.h")
    library = cublaslt.CublasLt.__new__(cublaslt.CublasLt)
    functions = {
        name: cublas.bind(cublaslt.load_cublaslt(), name, types) for name, types in cublaslt.PROTOTYPES.items()
    }
    library.__dict__.update(
        _functions=functions, handle=None, stream=0, workspace=0, workspace_bytes=32 << 20, asked=lambda *_: False
    )
    for epilogue in cublaslt.EPILOGUES:
        for dtype in (np.float32, np.float64):
            arrays = [SimpleNamespace(dtype=np.dtype(dtype), data=SimpleNamespace(ptr=256 * i)) for i in (1, 2, 3)]
            operands = Operands(False, True, 40, 30, 20, arrays[0], 40, arrays[1], 32, arrays[2], 48)
            assert library.plan(operands, epilogue, 4096, 8192, 128, tf32=True) is None


# ---- a library with cuBLASLt's interface -----------------------------------------------------------------------------

STAND_IN = r"""
#include <cstdint>
#include <cstddef>
#include <cstring>
struct State {
    int alive, fail, none, refused, no_nan, drops_nan, compute, reductions;
    uint32_t alignment[4];
    uint64_t workspace;
    void* stream;
};
extern "C" { State lt_state; }
struct Desc {
    int compute, scale;
    int32_t transpose[2];
    uint32_t epilogue;
    void* bias;
    uint8_t* mask;
    int64_t mask_ld;
};
struct Layout { int type; uint64_t rows, columns; int64_t ld; };
struct Result { uint64_t algo[8]; size_t workspace; int state; float waves; int reserved[4]; };
template <typename T> int make(T** out) { *out = new T(); ++lt_state.alive; return 0; }
template <typename T> int drop(T* object) { delete object; --lt_state.alive; return 0; }
template <typename T> int set(T& field, const void* buffer, size_t size) {
    if (size != sizeof(T)) return 7;
    memcpy(&field, buffer, size);
    return 0;
}
extern "C" int cublasLtCreate(int** handle) { return lt_state.fail ? lt_state.fail : make(handle); }
extern "C" int cublasLtDestroy(int* handle) { return drop(handle); }
extern "C" int cublasLtMatmulDescCreate(Desc** d, int compute, int scale) {
    make(d);
    (*d)->compute = lt_state.compute = compute;
    (*d)->scale = scale;
    return 0;
}
extern "C" int cublasLtMatmulDescDestroy(Desc* d) { return drop(d); }
extern "C" int cublasLtMatmulDescSetAttribute(Desc* d, int attribute, const void* buffer, size_t size) {
    switch (attribute) {
        case 3: case 4: return set(d->transpose[attribute - 3], buffer, size);
        case 7: return set(d->epilogue, buffer, size);
        case 8: return set(d->bias, buffer, size);
        case 11: return set(d->mask, buffer, size);
        case 12: return set(d->mask_ld, buffer, size);
    }
    return 7;
}
extern "C" int cublasLtMatrixLayoutCreate(Layout** l, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    make(l);
    **l = Layout{type, rows, columns, ld};
    return 0;
}
extern "C" int cublasLtMatrixLayoutDestroy(Layout* l) { return drop(l); }
extern "C" int cublasLtMatmulPreferenceCreate(State** p) { return make(p); }
extern "C" int cublasLtMatmulPreferenceDestroy(State* p) { return drop(p); }
extern "C" int cublasLtMatmulPreferenceSetAttribute(State*, int attribute, const void* buffer, size_t size) {
    if (attribute == 1) return set(lt_state.workspace, buffer, size);
    if (attribute == 3) return set(lt_state.reductions, buffer, size);
    return attribute < 5 || attribute > 8 ? 7 : set(lt_state.alignment[attribute - 5], buffer, size);
}
extern "C" int cublasLtMatmulAlgoGetHeuristic(int* handle, Desc* d, Layout*, Layout*, Layout* c, Layout* out, State*,
                                              int wanted, Result* result, int* found) {
    if (!handle || wanted != 1 || c != out) return 7;
    if (d->epilogue == (uint32_t)lt_state.none) return 15;
    *result = Result{{0xA160}, 0, 0, 1.0f, {}};
    *found = 1;
    return 0;
}
template <typename T>
int product(Desc* d, T alpha, const T* A, Layout* a, const T* B, Layout* b, T beta, T* D, Layout* out) {
    const int64_t m = out->rows, n = out->columns, k = d->transpose[0] ? a->rows : a->columns;
    if ((int64_t)(d->transpose[1] ? b->columns : b->rows) != k || (beta != 0 && beta != 1)) return 7;
    if (alpha == alpha && alpha != 1) return 7;
    T* bias = (T*)d->bias;
    const uint32_t e = d->epilogue;
    for (int64_t i = 0; i < m; ++i) {
        T rows = 0, left = 0;
        for (int64_t l = 0; l < k; ++l) left += d->transpose[0] ? A[i * a->ld + l] : A[l * a->ld + i];
        for (int64_t j = 0; j < n; ++j) {
            T sum = 0;
            for (int64_t l = 0; l < k; ++l)
                sum += (d->transpose[0] ? A[i * a->ld + l] : A[l * a->ld + i]) *
                       (d->transpose[1] ? B[l * b->ld + j] : B[j * b->ld + l]);
            sum *= alpha;
            uint8_t& bits = d->mask[(j * d->mask_ld + i) / 8];
            const uint8_t bit = 1 << (i % 8);
            if (beta) sum += D[j * out->ld + i];
            if (e & 4) sum += bias[i];
            if (e & 2 && e & 128) bits = sum > 0 ? bits | bit : bits & ~bit;
            if (e & 2) sum = sum > 0 || (sum != sum && !lt_state.no_nan) ? sum : 0;
            if (e & 8) sum = bits & bit ? sum : lt_state.drops_nan ? 0 : sum * 0;
            rows += D[j * out->ld + i] = sum;
        }
        if (e & 16) bias[i] = rows;
        if (e == 256) bias[i] = left;
    }
    return 0;
}
extern "C" int cublasLtMatmul(int* handle, Desc* d, const void* alpha, const void* A, Layout* a, const void* B,
                              Layout* b, const void* beta, const void* C, Layout* c, void* D, Layout* out,
                              const uint64_t* algo, void* workspace, size_t bytes, void* stream) {
    if (!handle || C != D || c != out || *algo != 0xA160 || bytes != lt_state.workspace || !workspace) return 7;
    lt_state.stream = stream;
    if (d->epilogue == (uint32_t)lt_state.refused && d->epilogue) return 15;
    if (d->scale != out->type) return 7;
    return d->scale ? product(d, *(double*)alpha, (double*)A, a, (double*)B, b, *(double*)beta, (double*)D, out)
                    : product(d, *(float*)alpha, (float*)A, a, (float*)B, b, *(float*)beta, (float*)D, out);
}
"""


class State(ctypes.Structure):
    """The state of the fake library: recorded and configured values."""

    _fields_ = (
        *((name, c_int) for name in ("alive", "fail", "none", "refused")),
        *((name, c_int) for name in ("no_nan", "drops_nan", "compute", "reductions")),
        ("alignment", ctypes.c_uint32 * 4),
        ("workspace", c_uint64),
        ("stream", c_void_p),
    )


def build_stand_in(folder) -> ctypes.CDLL:
    """A library with cuBLASLt's interface that works on host memory."""
    (folder / "cublaslt.cpp").write_text(STAND_IN)
    command = [compiler(), "-O1", "-shared", "-fPIC", "-Wl,-Bsymbolic", "cublaslt.cpp", "-o", "libcublasLt.so"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "libcublasLt.so"))


@pytest.fixture(scope="module")
def library(needs_compiler, tmp_path_factory):
    return build_stand_in(tmp_path_factory.mktemp("cublaslt"))


@pytest.fixture
def state(library):
    found = State.in_dll(library, "lt_state")
    found.fail = found.none = found.refused = found.no_nan = found.drops_nan = 0
    return found


@pytest.fixture
def handle(library, state):
    return cublaslt.CublasLt(library, 0x57, 0x1000, 32 << 20)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("kind", cublaslt.EPILOGUES)
def test_products_are_those_of_the_emulator(handle, state, kind, adds, dtype, transpose_a, transpose_b):
    """The fake library and the emulator implement the same contract, and the binding gives both the same arguments."""
    runtime = EmulatedRuntime()
    rng = np.random.default_rng(0)
    m, n, k = 11, 5, 4
    shapes = ((m if transpose_a else k, 13), (k if transpose_b else n, 14), (n, 15))
    values = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    bias, mask = rng.standard_normal(m).astype(dtype), rng.integers(0, 256, (n, 16)).astype(np.uint8)
    results = []
    for launch in (False, True):
        arrays = [runtime.zeros(array.shape, array.dtype) for array in (*values, bias, mask)]
        for array, given in zip(arrays, (*values, bias, mask), strict=True):
            runtime.write(given, array)
        a, b, c, sums, bits = arrays
        operands = Operands(transpose_a, transpose_b, m, n, k, a, 13, b, 14, c, 15, adds)
        if launch:
            plan = handle.plan(operands, kind, sums.data.ptr, bits.data.ptr, 128, tf32=False)
            plan.launch()
        else:
            runtime.product(operands, Epilogue(kind, sums, bits, 128)).launch()
        results.append([runtime.read(array) for array in (c, sums)])
        results[-1].append(np.unpackbits(runtime.read(bits), axis=1, bitorder="little")[:, :m])
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert state.stream == 0x57


@pytest.mark.parametrize(
    ("dtype", "tf32", "compute"), [("float32", False, 68), ("float32", True, 77), ("float64", True, 70)]
)
def test_the_algorithm_request(handle, state, dtype, tf32, compute):
    arrays = [SimpleNamespace(dtype=np.dtype(dtype), data=SimpleNamespace(ptr=at)) for at in (1024, 48, 160)]
    operands = Operands(False, False, 2, 2, 2, arrays[0], 2, arrays[1], 2, arrays[2], 2)
    assert handle.plan(operands, "bias", 16, 0, 0, tf32)
    assert state.compute == compute
    assert list(state.alignment) == [256, 16, 32, 32]
    # No sums in varying order.
    assert state.reductions == 6
    assert state.workspace == 32 << 20


def test_unsupported_products(handle, state):
    arrays = [SimpleNamespace(dtype=np.dtype("float32"), data=SimpleNamespace(ptr=256)) for _ in range(3)]
    operands = Operands(False, False, 2, 2, 2, arrays[0], 2, arrays[1], 2, arrays[2], 2)
    state.none = cublaslt.EPILOGUES["bgrada"]
    assert handle.plan(operands, "bgrada", 16, 0, 0, False) is None
    assert handle.plan(operands, "bias", 16, 0, 0, False)


def test_created_objects_are_destroyed(library, state):
    gc.collect()
    before = state.alive
    handle = cublaslt.CublasLt(library, 0, 0, 0)
    arrays = [SimpleNamespace(dtype=np.dtype("float32"), data=SimpleNamespace(ptr=256)) for _ in range(3)]
    plan = handle.plan(Operands(False, False, 2, 2, 2, arrays[0], 2, arrays[1], 2, arrays[2], 2), "bias", 1, 0, 0, True)
    # The handle, a description, three layouts and the preference.
    assert state.alive == before + 6
    del plan
    gc.collect()
    assert state.alive == before + 1
    del handle
    gc.collect()
    assert state.alive == before


def test_a_failed_status_is_named(library, state):
    state.fail = 1
    with pytest.raises(cublas.CublasError, match=r"cublasLtCreate failed: CUBLAS_STATUS_NOT_INITIALIZED \(1\)"):
        cublaslt.CublasLt(library, 0, 0, 0)
