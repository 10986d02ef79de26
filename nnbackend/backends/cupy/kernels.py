"""The kernels: read from the ``.cu`` files, and compiled for each real type on first use."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from nnbackend.backends.cupy.interface import Kernel, Module, Runtime

__all__ = ["KERNEL_FILES", "KernelLibrary", "kernel_options", "kernel_source"]

#: The kernel files, without their extension.
KERNEL_FILES: tuple[str, ...] = (
    "activations", "augmentation", "batch", "batch_norm", "convolution", "dense_step", "dropout", "images",
    "layer_norm", "losses", "normalization", "reductions", "tables", "updates",
)  # fmt: skip

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
_C_NAMES = {"float32": "float", "float64": "double"}


@cache
def kernel_source(name: str) -> str:
    """The text of a kernel file with its headers inserted.

    Inserted here rather than included by the compiler: CuPy's cache of compiled kernels depends only on the text and
    the options, and would not notice a change in an included file. ``#line`` makes messages refer to the real files.
    """
    text = _file(f"{name}.cu")

    def insert(include: re.Match[str]) -> str:
        header = _file(include[1]).replace("#pragma once\n", "\n")
        line = text.count("\n", 0, include.start()) + 2
        return f'#line 1 "{include[1]}"\n{header}\n#line {line} "{name}.cu"'

    return f'#line 1 "{name}.cu"\n{_INCLUDE.sub(insert, text)}'


def _file(name: str) -> str:
    return (files(__package__) / "cuda" / name).read_text(encoding="utf-8")


def kernel_options(real: np.dtype[Any]) -> tuple[str, ...]:
    """Compiler options for one real type."""
    return "--std=c++17", f"-DREAL={_C_NAMES[real.name]}"


class KernelLibrary:
    """Compiled kernels by name."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._modules: dict[tuple[str, str], Module] = {}
        self._kernels: dict[tuple[str, str], Kernel] = {}

    def get(self, name: str, real: np.dtype[Any]) -> Kernel:
        """The kernel `name`, ``"file.kernel"``, for one real type."""
        key = (name, real.char)
        kernel = self._kernels.get(key)
        if kernel is None:
            file, _, function = name.partition(".")
            kernel = self._kernels[key] = self._module(file, real).kernel(function)
        return kernel

    def _module(self, file: str, real: np.dtype[Any]) -> Module:
        key = (file, real.char)
        if key not in self._modules:
            self._modules[key] = self._runtime.load(kernel_source(file), kernel_options(real))
        return self._modules[key]
