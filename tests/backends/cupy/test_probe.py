"""The probe: every reason why CuPy cannot run, on simulated machines, and the real result on this one."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace

import pytest

import nnbackend.backends.cupy as package
from nnbackend.backends import registry
from nnbackend.cli import main
from nnbackend.errors import BackendUnavailableError

probe_module = importlib.import_module("nnbackend.backends.cupy.probe")


class FakeError(Exception):
    """CuPy's CUDARuntimeError."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cudaErrorSomething: status {status}\nmore lines")
        self.status = status


class DynamicLibNotFoundError(RuntimeError):
    """cuda.pathfinder's."""


def _raises(error: Exception):
    def function(*_, **__):
        raise error

    return function


@pytest.fixture
def machine(monkeypatch):
    """A function that simulates a machine that works except for the given faults."""

    def make(packages=("cupy-cuda13x",), hip=False, devices=1, driver=13020, memory=None, **missing):
        runtime = SimpleNamespace(
            CUDARuntimeError=FakeError,
            is_hip=hip,
            getDeviceCount=_raises(devices) if isinstance(devices, Exception) else lambda: devices,
            memGetInfo=_raises(memory) if memory else lambda: (1, 2),
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: 13020,
            getDevice=lambda: 0,
            getDeviceProperties=lambda number: {"name": b"NVIDIA H100 80GB HBM3"},
        )

        class Cuda(ModuleType):
            def __getattr__(self, name):
                if name == "cublas" and "cublas" not in missing:
                    return "the module"
                raise missing.get(name, AttributeError(name))

        cuda = Cuda("cupy.cuda")
        cuda.runtime = runtime
        cuda.nvrtc = SimpleNamespace(getVersion=_raises(missing["nvrtc"]) if "nvrtc" in missing else lambda: (13, 0))
        cupy = ModuleType("cupy")
        cupy.cuda = cuda
        kernel = SimpleNamespace(kernel="a function")
        function = _raises(missing["compile"]) if "compile" in missing else lambda name: kernel
        cupy.RawModule = lambda code: SimpleNamespace(get_function=function)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setattr(probe_module, "_is_installed", lambda name: name in packages)
        monkeypatch.setattr(probe_module, "_has_driver", lambda: driver > 0)

    package.probe.cache_clear()
    yield make
    package.probe.cache_clear()


def test_a_machine_with_a_gpu(machine):
    machine()
    assert package.probe() == (None, "")
    assert package.device_name() == "NVIDIA H100 80GB HBM3"


def test_no_cupy(machine, monkeypatch):
    machine(packages=())
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(importlib, "import_module", _raises(ModuleNotFoundError("No module", name="cupy")))
    reason, remedy = package.probe()
    assert reason == "CuPy is not installed"
    assert 'pip install -e ".[cuda13]"' in remedy
    assert "cuda12" in remedy


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libcudart.so.13: cannot open shared object file"),
        DynamicLibNotFoundError("Failure finding libnvrtc"),
        ModuleNotFoundError("No module named 'cuda'", name="cuda"),
    ],
)
def test_a_cupy_that_does_not_import(machine, monkeypatch, error):
    machine()
    monkeypatch.setattr(importlib, "import_module", _raises(error))
    reason, remedy = package.probe()
    assert reason == f"CuPy cannot be imported ({error})"
    assert "pip install" in remedy


def test_two_cupys(machine):
    machine(packages=("cupy-cuda12x", "cupy-cuda13x"))
    reason, remedy = package.probe()
    assert "cupy-cuda12x, cupy-cuda13x" in reason
    assert remedy.startswith("pip uninstall cupy-cuda12x cupy-cuda13x; then ")


def test_rocm(machine):
    machine(packages=("cupy-rocm-7-0",), hip=True)
    assert "ROCm" in package.probe()[0]


def test_no_driver(machine):
    machine(devices=FakeError(35), driver=0)
    assert package.probe() == (
        "there is no NVIDIA driver on this machine",
        "It needs an NVIDIA GPU, and its driver installed",
    )


@pytest.mark.parametrize("problem", ["not installed", "two", "not importable", "ROCm"])
def test_no_driver_comes_before_anything_to_install(machine, monkeypatch, problem):
    packages = {"not installed": (), "two": ("cupy-cuda12x", "cupy-cuda13x")}.get(problem, ("cupy-cuda13x",))
    machine(packages=packages, driver=0, hip=problem == "ROCm")
    if problem in ("not installed", "not importable"):
        error = (
            ModuleNotFoundError("No module", name="cupy") if problem == "not installed" else ImportError("libcudart")
        )
        monkeypatch.delitem(sys.modules, "cupy")
        monkeypatch.setattr(importlib, "import_module", _raises(error))
    reason, remedy = package.probe()
    assert reason == "there is no NVIDIA driver on this machine"
    assert remedy.startswith("It needs an NVIDIA GPU, and its driver installed. Then, because ")
    assert "pip" in remedy


def test_old_driver(machine):
    machine(devices=FakeError(35), driver=12040)
    reason, remedy = package.probe()
    assert reason == "the NVIDIA driver supports CUDA 12.4, and this CuPy needs CUDA 13.2"
    assert "cuda12" in remedy


def test_no_device_in_the_count(machine):
    machine(devices=0)
    assert "finds no GPU" in package.probe()[0]


@pytest.mark.parametrize(
    ("status", "reason", "remedy"),
    [
        (100, "finds no GPU", "CUDA_VISIBLE_DEVICES"),
        (209, "no code for this GPU", "cuda12"),
        (222, "older than the compiler", "driver"),
        (802, "not ready", "nvidia-fabricmanager"),
        (803, "different versions", "Reboot"),
        (804, "forward-compatibility", "cuda-compat"),
        (999, r"cudaErrorSomething: status 999 (status 999)", "driver"),
    ],
)
@pytest.mark.parametrize("where", ["devices", "memory"])
def test_driver_errors(machine, where, status, reason, remedy):
    machine(**{where: FakeError(status)})
    found, advice = package.probe()
    assert reason in found
    assert remedy in advice
    assert "\n" not in found


@pytest.mark.parametrize(("status", "reason"), [(46, "exclusive use"), (2, "out of memory")])
def test_a_busy_gpu(machine, status, reason):
    machine(memory=FakeError(status))
    assert reason in package.probe()[0]


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        (
            {"cublas": ImportError("libcublas.so.13: cannot open\nmore")},
            "cuBLAS is missing (libcublas.so.13: cannot open)",
        ),
        ({"nvrtc": DynamicLibNotFoundError("Failure finding libnvrtc")}, "NVRTC is missing (Failure finding libnvrtc)"),
        ({"compile": RuntimeError("no CUDA headers")}, "a kernel does not compile (no CUDA headers)"),
        ({"compile": RuntimeError()}, "a kernel does not compile (RuntimeError)"),
    ],
)
def test_missing_libraries(machine, missing, reason):
    machine(**missing)
    assert package.probe() == (reason, 'Install the CUDA libraries: pip install "cupy-cuda13x[ctk]"')


def test_libraries_missing_from_the_runtime_itself(machine):
    machine(devices=DynamicLibNotFoundError("Failure finding libcudart"))
    reason, remedy = package.probe()
    assert "libcudart" in reason
    assert "[ctk]" in remedy


@pytest.mark.parametrize(
    ("state", "reason", "remedy"),
    [
        (
            {"devices": FakeError(35), "driver": 0},
            "there is no NVIDIA driver on this machine",
            "It needs an NVIDIA GPU, and its driver installed",
        ),
        (
            {"cublas": ImportError("libcublas.so.13: cannot open shared object file")},
            "cuBLAS is missing (libcublas.so.13: cannot open shared object file)",
            'Install the CUDA libraries: pip install "cupy-cuda13x[ctk]"',
        ),
        (
            {"devices": FakeError(35), "driver": 12040},
            "the NVIDIA driver supports CUDA 12.4, and this CuPy needs CUDA 13.2",
            'pip uninstall cupy-cuda13x; then pip install -e ".[cuda12]"',
        ),
        (
            {"packages": ("cupy-cuda12x", "cupy-cuda13x")},
            "several CuPy packages are installed at once (cupy-cuda12x, cupy-cuda13x), and they overwrite each other",
            "pip uninstall cupy-cuda12x cupy-cuda13x; then ",
        ),
    ],
    ids=["no GPU", "no CUDA libraries", "another CuPy than the driver's", "two CuPys"],
)
def test_the_output_of_nnbackend_info(machine, capsys, state, reason, remedy):
    machine(**state)
    registry._probe.cache_clear()
    try:
        assert main(["info"]) == 0
    finally:
        registry._probe.cache_clear()
    lines = capsys.readouterr().out.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("  cupy   not usable")]
    assert lines[place].endswith(reason)
    assert remedy in lines[place + 1]


def test_a_user_created_backend_reports_it_too(machine):
    machine(devices=FakeError(35), driver=0)
    with pytest.raises(BackendUnavailableError, match="backend 'cupy' cannot run here: there is no NVIDIA driver"):
        package.CupyBackend(precision="tf32")


def test_a_backend_is_probed_once(machine):
    machine(devices=0)
    first = package.probe()
    machine()
    assert package.probe() is first


def test_no_reason_ends_with_a_full_stop():
    """It becomes part of a sentence: "backend 'cupy' cannot run here: <reason>. <remedy>"."""
    for reason, remedy in probe_module._STATUS.values():
        assert not reason.endswith(".")
        assert not remedy.endswith(".")
        assert not reason[0].isupper() or reason.startswith(("CUDA", "CuPy"))


def test_packages_are_recognised():
    assert probe_module._is_installed("numpy")
    assert not probe_module._is_installed("cupy-cuda00x")


def test_this_machine():
    package.probe.cache_clear()
    reason, remedy = package.probe()
    if reason is None:
        assert remedy == ""
        assert package.device_name()
        return
    assert remedy
    try:
        importlib.metadata.distribution("cupy-cuda13x")
    except importlib.metadata.PackageNotFoundError:
        return
    assert reason != "CuPy is not installed"
