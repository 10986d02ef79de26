"""Backends on the CPU for these tests, which are skipped if kernels cannot be built."""

from __future__ import annotations

from functools import cache

import pytest

from nnbackend.backends.cupy import CupyBackend
from tests.backends.cupy import test_cublas, test_cublaslt
from tests.backends.cupy.emulator import emulated_cupy_backend, why_not
from tests.backends.cupy.fake_cupy import FakeCupy


@cache
def _backend(reverse_threads: bool, reverse_blocks: bool, interleave: int) -> CupyBackend:
    return emulated_cupy_backend(reverse_threads=reverse_threads, reverse_blocks=reverse_blocks, interleave=interleave)


@pytest.fixture(scope="session")
def needs_compiler() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def emulated(needs_compiler) -> CupyBackend:
    """The CuPy backend on the CPU."""
    return _backend(False, False, 0)


@pytest.fixture(
    scope="session", params=[(True, False, 0), (False, True, 1), (True, True, 2)], ids=["threads", "blocks", "both"]
)
def reversed_order(request, needs_compiler) -> CupyBackend:
    """The same, with threads, blocks or both in reverse order, and warps in lockstep, as far ahead as possible, or in a
    random order."""
    return _backend(*request.param)


# ---- the runtime with a fake CuPy on host memory ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(needs_compiler, tmp_path_factory):
    return test_cublas.build_stand_in(tmp_path_factory.mktemp("cublas"))


@pytest.fixture(scope="module")
def lt_library(needs_compiler, tmp_path_factory):
    return test_cublaslt.build_stand_in(tmp_path_factory.mktemp("cublaslt"))


@pytest.fixture
def lt_state(lt_library):
    state = test_cublaslt.State.in_dll(lt_library, "lt_state")
    state.fail = state.none = state.refused = state.no_nan = state.drops_nan = 0
    return state


@pytest.fixture
def cupy(monkeypatch, library, lt_library, lt_state):
    from nnbackend.backends.cupy import runtime

    fake = FakeCupy()
    monkeypatch.setattr(runtime, "cupy", fake)
    monkeypatch.setattr("nnbackend.backends.cupy.backend.probe", lambda: (None, ""))
    monkeypatch.setattr(runtime, "load_cublas", lambda: library)
    monkeypatch.setattr(runtime, "load_cublaslt", lambda: lt_library)
    # The fake libraries compute immediately; here products are enqueued on the stream like other work.
    gemm, launch = runtime.Cublas.gemm, runtime.Plan.launch

    def product(plan, factor=1.0):
        fake.calls.append("product")
        state = test_cublaslt.State.in_dll(lt_library, "lt_state")
        # Errors in a call are seen at once.
        if state.refused:
            launch(plan, factor)
        fake.stream.do(lambda: launch(plan, factor))

    monkeypatch.setattr(runtime.Cublas, "gemm", lambda *arguments: fake.stream.do(lambda: gemm(*arguments)))
    monkeypatch.setattr(runtime.Plan, "launch", product)
    return fake


@pytest.fixture
def backend(cupy) -> CupyBackend:
    return CupyBackend()


@pytest.fixture
def products(cupy) -> CupyBackend:
    """A backend whose steps consist of products and other operations."""
    return CupyBackend(two_kernels=False)
