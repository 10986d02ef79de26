"""Checks whether CuPy can run here, and if not, finds the reason and the remedy.

``cupy.cuda.is_available()`` hides the reason, so this checks step by step: the package, the driver, the device, the
libraries, and finally an empty kernel. If any of them fails on a machine without a driver, that is the reason: nobody
should install hundreds of megabytes to learn it. A failing check can take seconds, so it runs only on request, and only
once.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
from collections.abc import Callable
from functools import cache
from typing import Any

from nnbackend.support.extras import install_command

__all__ = ["device_name", "probe"]

#: The packages that currently install a module called ``cupy``.
_PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-rocm-5-0", "cupy-rocm-7-0", "amd-cupy")

_INSTALL = f"{install_command('cuda13')}; with an NVIDIA driver older than version 580, use cuda12 instead of cuda13"
_UPDATE = "Update the NVIDIA driver"

_NO_DRIVER = "there is no NVIDIA driver on this machine", "It needs an NVIDIA GPU, and its driver installed"

#: Reason and remedy by cudaError_t.
_STATUS = {
    2: ("the GPU is out of memory", "Free some memory; nvidia-smi shows which processes use it"),
    46: ("another process has exclusive use of the GPU", "Wait for it, or choose another GPU"),
    100: (
        "the NVIDIA driver finds no GPU",
        "Check nvidia-smi and CUDA_VISIBLE_DEVICES; a container must be given the GPU (docker run --gpus all)",
    ),
    209: (
        "CuPy has no code for this GPU, which is too old for CUDA 13",
        f"Remove cupy-cuda13x, then {install_command('cuda12')}",
    ),
    222: ("the NVIDIA driver is older than the compiler CuPy uses", f"{_UPDATE}, or {install_command('cuda12')}"),
    802: ("the GPU is not ready yet", "Start the service nvidia-fabricmanager, or wait for it"),
    803: (
        "the NVIDIA kernel driver and the library libcuda have different versions",
        "Reboot, or install the driver again",
    ),
    804: (
        "CUDA's forward-compatibility library does not work with this GPU",
        f"{_UPDATE}, or remove the cuda-compat package",
    ),
}


@cache
def probe() -> tuple[str | None, str]:
    """Whether the CuPy backend can run on this machine.

    Returns
    -------
    reason : str or None
        Why it cannot; None if it can.
    remedy : str
        What to install or change; empty if it can.
    """
    found = _problem()
    if found is None:
        return None, ""
    if _has_driver() or found == _NO_DRIVER:
        return found
    reason, remedy = _NO_DRIVER
    # With a driver, the other problem would remain.
    return reason, f"{remedy}. Then, because {found[0]}: {found[1]}"


def _problem() -> tuple[str, str] | None:
    """The first problem, whether there is a driver or not."""
    installed = [name for name in _PACKAGES if _is_installed(name)]
    if len(installed) > 1:
        return (
            f"several CuPy packages are installed at once ({', '.join(installed)}), and they overwrite each other",
            f"pip uninstall {' '.join(installed)}; then {_INSTALL}",
        )
    try:
        cupy = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            return "CuPy is not installed", _INSTALL
        return f"CuPy cannot be imported ({_first_line(error)})", _INSTALL
    except Exception as error:
        return f"CuPy cannot be imported ({_first_line(error)})", _libraries(installed)
    if cupy.cuda.runtime.is_hip:
        return "this CuPy is built for ROCm, and the kernels are written for CUDA", f"Remove it; then {_INSTALL}"
    return _driver(cupy, installed) or _toolkit(cupy, installed)


def device_name() -> str:
    """The name of the current CUDA device; call it only if :func:`probe` found no problem."""
    runtime = importlib.import_module("cupy").cuda.runtime
    name: bytes = runtime.getDeviceProperties(runtime.getDevice())["name"]
    return name.decode()


def _driver(cupy: Any, installed: list[str]) -> tuple[str, str] | None:
    """The problem with the driver or device, if any."""
    runtime = cupy.cuda.runtime
    try:
        if runtime.getDeviceCount() == 0:
            return _STATUS[100]
        runtime.memGetInfo()  # the first call that accesses the device
    except runtime.CUDARuntimeError as error:
        status = int(error.status)
        if status == 35:
            return _insufficient_driver(runtime)
        return _STATUS.get(status, (f"CUDA reports {_first_line(error)} (status {status})", f"{_UPDATE} and try again"))
    except Exception as error:
        return f"the CUDA runtime does not work ({_first_line(error)})", _libraries(installed)
    return None


def _insufficient_driver(runtime: Any) -> tuple[str, str]:
    """Status 35, "insufficient driver", means that the driver is old or missing."""
    driver = runtime.driverGetVersion()
    if driver == 0:
        return _NO_DRIVER
    return (
        f"the NVIDIA driver supports CUDA {_version(driver)}, and this CuPy needs CUDA "
        f"{_version(runtime.runtimeGetVersion())}",
        f"{_UPDATE}, or replace cupy-cuda13x: pip uninstall cupy-cuda13x; then {install_command('cuda12')}",
    )


def _toolkit(cupy: Any, installed: list[str]) -> tuple[str, str] | None:
    """The missing CUDA library, if any."""
    checks: dict[str, Callable[[], object]] = {
        "cuBLAS": lambda: cupy.cuda.cublas,
        "NVRTC": lambda: cupy.cuda.nvrtc.getVersion(),
        "a kernel": lambda: cupy.RawModule(code='extern "C" __global__ void probe() {}').get_function("probe").kernel,
    }
    for name, check in checks.items():
        try:
            check()
        except Exception as error:
            what = "does not compile" if name == "a kernel" else "is missing"
            return f"{name} {what} ({_first_line(error)})", _libraries(installed)
    return None


def _has_driver() -> bool:
    """Whether the library of the NVIDIA driver can be loaded, as CuPy will load it."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _libraries(installed: list[str]) -> str:
    package = installed[0] if installed else "cupy-cuda13x"
    return f'Install the CUDA libraries: pip install "{package}[ctk]"'


def _version(number: int) -> str:
    """CUDA's 13020 as 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if there is no message."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
