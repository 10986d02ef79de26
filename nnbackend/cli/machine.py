"""What can be found out about this machine. Every answer is best effort: where something is missing it says less."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["blas_libraries", "cpu_features", "cpu_name", "kernel_advice"]

#: What OpenBLAS's kernels for AVX-512 use, in /proc/cpuinfo's spelling.
_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}

#: OpenBLAS's kernel families for x86 that use AVX-512; all others use at most AVX2.
_AVX512_FAMILIES = {"skylakex", "cooperlake", "sapphirerapids", "zen4", "zen5"}


def cpu_name() -> str:
    """The processor, as the system calls it."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def cpu_features() -> set[str]:
    """Instruction sets of the processor, in the spelling of Linux's /proc/cpuinfo."""
    for line in _cpuinfo():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    try:
        # NumPy knows on every system, but offers it in no public place.
        known = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):
        return set()
    found = {str(name).lower() for name, present in known.items() if present}
    # NumPy's names for the whole group of AVX-512 that came with Skylake-X.
    return found | _AVX512 if found & {"avx512_skx", "x86_v4"} else found


def blas_libraries() -> list[dict[str, Any]]:
    """The BLAS libraries that are loaded, as threadpoolctl describes them; empty where it cannot be asked."""
    try:
        import threadpoolctl

        return [entry for entry in threadpoolctl.threadpool_info() if entry.get("user_api") == "blas"]
    except Exception:  # It looks into foreign libraries; whatever goes wrong there must not stop `info`.
        return []


def kernel_advice(library: str, architecture: str, features: Iterable[str]) -> str:
    """What to change if OpenBLAS does not use what the processor can do; empty if nothing.

    Parameters
    ----------
    library : str
        threadpoolctl's ``internal_api``.
    architecture : str
        The family of kernels the library chose when it was loaded.
    features : iterable of str
        Those of `cpu_features`.
    """
    if library != "openblas" or architecture.lower() in _AVX512_FAMILIES or not set(features) >= _AVX512:
        return ""
    return (
        f"OpenBLAS runs its {architecture} kernels, but this CPU has AVX-512, with which matrix products are\n"
        "up to twice as fast. It takes effect only if set before Python starts:\n"
        f"    {_setting('OPENBLAS_CORETYPE', 'SKYLAKEX')}"
    )


def _setting(name: str, value: str) -> str:
    return f"set {name}={value}" if os.name == "nt" else f"export {name}={value}"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
