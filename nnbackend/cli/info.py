"""``nnbackend info``."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nnbackend
from nnbackend.backends.numba.cache import cache_state
from nnbackend.backends.registry import available_backends
from nnbackend.cli.machine import blas_libraries, cpu_features, cpu_name, kernel_advice
from nnbackend.cli.text import aligned
from nnbackend.datasets.mnist import DATA_DIR_VARIABLE
from nnbackend.support.cores import usable_cores

__all__ = ["DESCRIPTION", "add_options", "run"]

DESCRIPTION = """\
Show which backends can run on this machine and what to install for the
others, with versions, BLAS, threads and caches."""

_PACKAGES = (
    "numpy",
    "numba",
    "safetensors",
    "threadpoolctl",
    "rich",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "torch",
    "array-api-compat",
    "matplotlib",
    "mlxtend",
    "scikit-learn",
    "pillow",
    "requests",
)

#: Environment variables that set the number of threads or choose the kernels.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_CORETYPE")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options: there are none."""


def run(options: argparse.Namespace) -> int:
    """Describe this machine and return 0."""
    print(f"nnbackend {nnbackend.__version__} on Python {platform.python_version()}, {platform.platform()}")
    # Backends first: probing them loads the libraries that the other sections describe.
    for title, text in (
        ("backends", _backends()),
        ("packages", _packages()),
        ("processor and threads", _processor()),
        ("BLAS, NumPy's library for matrix products", _blas()),
        ("data and caches", _caches()),
    ):
        print(f"\n{title}")
        print("\n".join(f"  {line}".rstrip() for line in text.splitlines()))
    return 0


def _backends() -> str:
    rows = []
    for info in available_backends():
        if info.usable:
            rows.append((info.name, "usable", f"on {info.device}"))
        else:
            rows.append((info.name, "not usable", info.reason))
            rows.append(("", "", info.remedy))
    return aligned(rows)


def _packages() -> str:
    rows = []
    for package in _PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    return aligned(rows)


def _processor() -> str:
    features = cpu_features()
    widest = next((name for flag, name in _WIDEST if flag in features), "unknown")
    rows = [
        ("processor", cpu_name()),
        ("vector instructions", widest),
        ("cores", f"{usable_cores()} usable of {os.cpu_count() or '?'}"),
    ]
    rows += [(name, os.environ[name]) for name in _VARIABLES if name in os.environ]
    return aligned(rows)


_WIDEST = (
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("avx", "AVX"),
    ("sve", "SVE"),
    ("asimd", "NEON"),
    ("neon", "NEON"),
    ("sse2", "SSE2"),
)


def _blas() -> str:
    libraries = blas_libraries()
    if not libraries:
        return "unknown (threadpoolctl recognises none)"
    texts = []
    features = cpu_features()
    for entry in libraries:
        library, architecture = str(entry.get("internal_api")), str(entry.get("architecture", "unknown"))
        rows = [
            ("library", f"{library} {entry.get('version') or ''}".rstrip()),
            ("kernels", architecture),
            ("threads", str(entry.get("num_threads", "?"))),
            ("file", str(entry.get("filepath", "?"))),
        ]
        advice = kernel_advice(library, architecture, features)
        texts.append(aligned(rows) + (f"\nADVICE: {advice}" if advice else ""))
    return "\n\n".join(texts)


def _caches() -> str:
    folder = os.environ.get(DATA_DIR_VARIABLE)
    rows = [(DATA_DIR_VARIABLE, "not set" if not folder else folder + _state(Path(folder)))]
    cache = _data_cache()
    if cache is not None:
        rows.append(("downloaded data", f"{cache}{_state(cache)}"))
    kernels = cache_state().folder
    if kernels is not None:
        compiled = len(list(kernels.glob("*.nbc"))) if kernels.is_dir() else 0
        count = f"{compiled} files" if compiled else "none yet; 'nnbackend warmup' compiles them"
        rows.append(("compiled Numba kernels", f"{kernels} ({count})"))
    return aligned(rows)


def _state(folder: Path) -> str:
    """The size of a folder, or a note that it does not exist, in parentheses."""
    if not folder.is_dir():
        return " (there is no such folder)"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f" ({size / 1e6:,.1f} MB)"


def _data_cache() -> Path | None:
    try:
        import platformdirs
    except ImportError:
        return None
    return Path(platformdirs.user_cache_dir("nnbackend"))
