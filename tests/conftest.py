"""The backends that the parametrised tests run on: one list, every test on all of them.

Beside the real ones stand two that make hidden promises visible: ``*-padded`` asks for rows padded to 16 elements,
and ``cupy-emulated`` is the CuPy backend with its CUDA kernels built for the CPU.
"""

from __future__ import annotations

import functools
import os
import signal

import pytest

from nnbackend.backends.contract import Backend
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.backends.registry import get_backend
from nnbackend.errors import BackendUnavailableError
from tests import locks

BACKENDS = [
    "numpy",
    "numpy-padded",
    "numba",
    "numba-padded",
    "cupy-emulated",
    pytest.param("cupy", marks=pytest.mark.gpu),
]


def pytest_configure() -> None:
    """A shell starts what it runs in the background with Ctrl-C ignored, which the package respects. The tests of
    Ctrl-C, and the programs that they start, are to have it as a terminal gives it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Workers begin at far ends of the suite: one compiles for Numba while the other has tests without."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _workers_compile_once(tmp_path_factory: pytest.TempPathFactory):
    """What a worker has compiled, the others load."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    # The folder of all workers.
    folder = tmp_path_factory.getbasetemp().parent / "compiling"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        locks.compile_once(patch, folder)
        yield


class PaddedNumpyBackend(NumpyBackend):
    row_multiple = 16


@functools.cache
def make_backend(name: str) -> Backend:
    """One of `BACKENDS`; skips the test, with the reason, where it cannot run."""
    if name == "numpy-padded":
        return PaddedNumpyBackend()
    if name == "numba-padded":
        from nnbackend.backends.numba import NumbaBackend

        class PaddedNumbaBackend(NumbaBackend):
            row_multiple = 16

        return PaddedNumbaBackend()
    if name == "cupy-emulated":
        from tests.backends.cupy.emulator import emulated_cupy_backend

        return emulated_cupy_backend()
    try:
        return get_backend(name)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn."""
    return make_backend(request.param)


@pytest.fixture
def numba_backend() -> Backend:
    return make_backend("numba")


@pytest.fixture(scope="session")
def mnist():
    """Full MNIST where NNBACKEND_DATA_DIR names it."""
    if not os.environ.get("NNBACKEND_DATA_DIR"):
        pytest.skip("needs full MNIST: set NNBACKEND_DATA_DIR to the folder with its four files")
    from nnbackend import datasets

    return datasets.load("mnist", download=False)
