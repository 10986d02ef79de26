"""Builds a ``.cu`` file for the CPU with g++, and parses its kernels' parameters."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tests.locks import locked, user_cache

__all__ = ["CpuModule", "Geometry", "Parameter", "compiler", "parse_kernels"]

_HEADER = Path(__file__).with_name("cuda_on_cpu.h")
# Fortified longjmp rejects the stack switches of fibers. Bsymbolic: a kernel may have the name of a function in a
# loaded library (as `advance` did).
_FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE")
_LINK = ("-shared", "-fPIC", "-Wl,-Bsymbolic")
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unknown-pragmas", "-Wno-clobbered")

_DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "unsigned int": np.uint32,
    "long long": np.int64,
    "unsigned char": np.uint8,
}
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(([^)]*)\)\s*\{')
_TYPEDEF = re.compile(r"typedef\s+([\w ]+?)\s+(\w+)\s*;")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: its name, the type (of what it points to), and whether it is a pointer."""

    name: str
    dtype: np.dtype
    pointer: bool
    c_type: str


class Geometry(ctypes.Structure):
    """The parameters of a launch, with the same fields as in ``_ENTRY``."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_size_t),
        ("reverse_threads", ctypes.c_int),
        ("reverse_blocks", ctypes.c_int),
        ("interleave", ctypes.c_uint),
    )


_ENTRY = """
struct Geometry { dim3 grid, block; size_t shared_bytes; int reverse_threads, reverse_blocks; unsigned interleave; };
extern "C" const char* launch(void (*kernel)(void**), void** arguments, const Geometry* g) {
    return cpu::run({kernel, arguments, g->grid, g->block, g->shared_bytes, g->reverse_threads != 0,
                     g->reverse_blocks != 0, g->interleave});
}
extern "C" void* fault() { return cpu::fault; }
"""


def compiler() -> str | None:
    """The C++ compiler with support for fibers: g++ on Linux; None elsewhere."""
    return shutil.which("g++") if sys.platform == "linux" else None


def parse_kernels(preprocessed: str) -> dict[str, tuple[Parameter, ...]]:
    """The kernels in preprocessed source, with their parameters."""
    aliases = {alias: " ".join(kind.split()) for kind, alias in _TYPEDEF.findall(preprocessed)}

    def parameter(text: str) -> Parameter:
        kind, name = re.fullmatch(r"\s*([\w\s]*?[\s*]+)(\w+)\s*", text.replace("__restrict__", " ")).groups()
        plain = " ".join(kind.replace("*", " ").replace("const", " ").split())
        while plain in aliases:
            plain = aliases[plain]
        if plain not in _DTYPES:
            raise TypeError(f"kernel parameter of a type that is not supported: {text!r}")
        return Parameter(name, np.dtype(_DTYPES[plain]), "*" in kind, plain)

    return {
        name: tuple(parameter(text) for text in parameters.split(","))
        for name, parameters in _KERNEL.findall(preprocessed)
    }


class CpuModule:
    """A ``.cu`` file as a shared library.

    Parameters
    ----------
    source : str
    options : sequence of str
        NVRTC's options; the ``-D`` ones are passed on.
    """

    def __init__(self, source: str, options: Sequence[str] = ()) -> None:
        defines = tuple(option for option in options if option.startswith("-D"))
        self.signatures, path = _build(source, defines)
        self.library = ctypes.CDLL(str(path))
        self.library.fault.restype = ctypes.c_void_p
        self.library.launch.restype = ctypes.c_char_p
        self.library.launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(Geometry))


@cache
def _build(source: str, defines: tuple[str, ...]) -> tuple[dict[str, tuple[Parameter, ...]], Path]:
    folder = _cache_folder()
    text = [source, _HEADER.read_text(), Path(__file__).read_text(), _version(), *defines]
    name = hashlib.sha256("\0".join(text).encode()).hexdigest()[:32]
    library, preprocessed = folder / f"{name}.so", folder / f"{name}.ii"
    if not (library.exists() and preprocessed.exists()):
        with locked(folder / f"{name}.lock"):
            if not (library.exists() and preprocessed.exists()):
                _compile_into(source, defines, preprocessed, library)
    return parse_kernels(preprocessed.read_text()), library


def _compile_into(source: str, defines: tuple[str, ...], preprocessed: Path, library: Path) -> None:
    """Neither file is ever incomplete."""
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        _compile(source, defines, Path(scratch))
        os.replace(Path(scratch) / "kernels.ii", preprocessed)
        os.replace(Path(scratch) / "kernels.so", library)


def _compile(source: str, defines: tuple[str, ...], folder: Path) -> None:
    """Preprocess, to find kernels that are generated by macros; then build with an entry point for each."""
    (folder / "kernels.cu").write_text(source)
    _run(compiler(), "-E", "-P", "-x", "c++", *defines, "kernels.cu", "-o", "kernels.ii", folder=folder)
    entries = []
    for name, parameters in parse_kernels((folder / "kernels.ii").read_text()).items():
        values = ", ".join(f"*({p.c_type}{'*' if p.pointer else ''}*)arguments[{i}]" for i, p in enumerate(parameters))
        entries.append(f'extern "C" void call_{name}(void** arguments) {{ {name}({values}); }}\n')
    code = f'#include "{_HEADER}"\n{source}\n{"".join(entries)}{_ENTRY}'
    (folder / "kernels.cpp").write_text(code)
    _run(compiler(), *_FLAGS, *_LINK, *_WARNINGS, *defines, "kernels.cpp", "-o", "kernels.so", folder=folder)


def _run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


@cache
def _version() -> str:
    return subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout


def _cache_folder() -> Path:
    """Builds are cached by content; if the home folder is not writable, in a temporary folder."""
    try:
        folder = user_cache()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError:
        return _temporary_folder()


@cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="nnbackend-tests-"))
