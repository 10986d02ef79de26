"""Describe the CPU and its libraries, as far as the system reveals them."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["blas_libraries", "cpu_features", "cpu_name", "kernel_advice"]

#: CPU features that OpenBLAS's AVX-512 kernels use, as /proc/cpuinfo spells them.
_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}

#: OpenBLAS's kernel families for x86 that use AVX-512; all others stop at AVX2.
_AVX512_FAMILIES = {"skylakex", "cooperlake", "sapphirerapids", "zen4", "zen5"}


def cpu_name() -> str:
    """The name of the processor."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def cpu_features() -> set[str]:
    """The processor's instruction sets, as Linux's /proc/cpuinfo spells them."""
    for line in _cpuinfo():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    try:
        # NumPy detects them on every system, but has no public API for them.
        detected = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):
        return set()
    found = {str(name).lower() for name, present in detected.items() if present}
    # NumPy has one name for the group of AVX-512 instruction sets that Skylake-X introduced.
    return found | _AVX512 if found & {"avx512_skx", "x86_v4"} else found


def blas_libraries() -> list[dict[str, Any]]:
    """The loaded BLAS libraries, as threadpoolctl describes them; empty if it is missing or fails."""
    try:
        import threadpoolctl

        return [entry for entry in threadpoolctl.threadpool_info() if entry.get("user_api") == "blas"]
    except Exception:  # It inspects foreign libraries; a failure there must not stop `info`.
        return []


def kernel_advice(library: str, architecture: str, features: Iterable[str]) -> str:
    """How to make OpenBLAS use AVX-512 if the processor has it; empty if there is nothing to change.

    Parameters
    ----------
    library : str
        The ``internal_api`` that threadpoolctl reports.
    architecture : str
        The family of kernels that the library chose when it was loaded.
    features : iterable of str
        The result of `cpu_features`.
    """
    if library != "openblas" or architecture.lower() in _AVX512_FAMILIES or not set(features) >= _AVX512:
        return ""
    return (
        f"OpenBLAS runs its {architecture} kernels, but this CPU has AVX-512, which makes matrix products up to\n"
        "twice as fast. To use it, set this before Python starts:\n"
        f"    {_setting('OPENBLAS_CORETYPE', 'SKYLAKEX')}"
    )


def _setting(name: str, value: str) -> str:
    return f"set {name}={value}" if os.name == "nt" else f"export {name}={value}"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
