"""The backends that parametrised tests run on, and how the tests are shared among pytest's workers.

Two kinds of backends exist only for tests: ``*-padded`` pads rows to 16 elements, and ``cupy-emulated`` is the CuPy
backend with its CUDA kernels built for the CPU.
"""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest

import nnbackend
from nnbackend.backends.contract import Backend
from nnbackend.backends.numpy import NumpyBackend
from nnbackend.backends.registry import get_backend
from nnbackend.errors import BackendUnavailableError
from nnbackend.support.cores import usable_cores
from tests import locks

BACKENDS = [
    "numpy",
    "numpy-padded",
    "numba",
    # Numba compiles the kernels again for rows with gaps.
    pytest.param("numba-padded", marks=pytest.mark.slow),
    "cupy-emulated",
    pytest.param("cupy", marks=pytest.mark.gpu),
    # These take minutes; `tests/backends/test_array_api.py` has a selection that always runs.
    *os.environ.get("NNBACKEND_TEST_BACKENDS", "").split(),
]


def pytest_configure(config: pytest.Config) -> None:
    """Restore the default handler of Ctrl-C, for these tests and the programs that they start: a shell ignores Ctrl-C
    in background processes, and the package respects that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _share_bytecode()
    _share_cores(len(config.getoption("tx", None) or ()))


def _share_cores(workers: int) -> None:
    """Limit the threads of each worker to its share of the cores: threads that wait for others would otherwise take
    the time of another worker. Tests of threads say how many they use."""
    if workers > 1:
        for library in ("OMP", "OPENBLAS", "MKL"):
            os.environ.setdefault(f"{library}_NUM_THREADS", str(max(1, usable_cores() // workers)))


def _share_bytecode() -> None:
    """If Python is configured to write no bytecode, write it outside the source tree, because the tests start hundreds
    of programs and each would compile the package again."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        folder = str(locks.user_cache() / "bytecode")
        # For the workers and all other processes, and for this one.
        os.environ.setdefault("PYTHONPYCACHEPREFIX", folder)
        sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Let a worker that has finished its tests take over some from another worker."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark tests of Numba in float64 as slow: Numba compiles all kernels again for a second dtype."""
    in_float64 = item.get_closest_marker("float64") or "float64" in _parameters(item)
    if in_float64 and _is_of_numba(item):
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that no worker runs one of them at the end while the others are idle. The very
    first one compiles kernels that most others load, and the other tests of Numba run last, so that another worker does
    not compile the same kernels at the same time."""
    items.sort(
        key=lambda item: (
            item.get_closest_marker("slow") is None,
            not item.nodeid.endswith(_COMPILES_FIRST),
            _is_of_numba(item),
        )
    )


def _parameters(item: pytest.Item) -> set[str]:
    """The texts among the parameters of a test."""
    values = getattr(getattr(item, "callspec", None), "params", {}).values()
    return {value for value in values if isinstance(value, str)}


def _is_of_numba(item: pytest.Item) -> bool:
    return item.path.name.startswith("test_numba_") or not _parameters(item).isdisjoint({"numba", "numba-padded"})


_COMPILES_FIRST = "test_warmup.py::test_after_a_warm_up_nothing_is_compiled_again"


def pytest_collection_finish() -> None:
    """Exclude the thousands of collected tests from garbage collection."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the processor time of the tests with all workers and programs, which other programs on the same machine
    change less than the time that has passed."""
    times = os.times()
    seconds = times.user + times.system + times.children_user + times.children_system
    terminalreporter.write_line(f"processor time: {seconds:.0f} s")


@pytest.fixture(scope="session", autouse=True)
def lock_folder(tmp_path_factory: pytest.TempPathFactory):
    """The folder of the locks that let only one worker compile a kernel; None without workers."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield None
        return
    # The parent of the workers' folders.
    folder = tmp_path_factory.getbasetemp().parent / "compiling"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        locks.compile_once(patch, folder)
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_other_compiler() -> Iterator[None]:
    """Compile in this process alone: the cores are busy with tests, and the other process does not share the locks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnbackend.backends.numba.ahead._is_possible", lambda: False)
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
    if name.startswith("array-api-strict"):
        return strict_backend(name)
    if name == "cupy-emulated":
        from tests.backends.cupy.emulator import emulated_cupy_backend

        return emulated_cupy_backend()
    try:
        return get_backend(name)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def strict_backend(name: str = "array-api-strict") -> Backend:
    """The backend on array-api-strict; with the suffix ``-float32``, on a device without float64."""
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("no_float64") if name.endswith("-float32") else None
    return nnbackend.ArrayApiBackend(strict, device)


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
