"""The registers of every kernel: ``python -m tests.backends.cupy.registers [sm_90 ...]`` prints a table.

Registers limit the number of concurrent threads: a multiprocessor has 65,536. Values that do not fit are spilled to
memory.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

import numpy as np

from nnbackend.backends.cupy.kernels import KERNEL_FILES, kernel_options, kernel_source
from tests.backends.cupy import nvrtc

__all__ = ["Resources", "read", "resources"]

_ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stored>\d+) bytes spill stores, (?P<loaded>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class Resources:
    """The registers of one thread, and bytes of memory for spilled values."""

    registers: int
    stack: int
    spilled: int


def resources(name: str, architecture: str, real: str) -> dict[str, Resources]:
    """The usage of the kernels in a file by name, as reported by ptxas."""
    options = (*kernel_options(np.dtype(real)), f"--gpu-architecture={architecture}", "--ptxas-options=-v")
    _, log = nvrtc.compile_cubin(kernel_source(name), f"{name}.cu", options)
    return read(log)


def read(log: str) -> dict[str, Resources]:
    """The same, parsed from the compiler's log with ``--ptxas-options=-v``."""
    return {
        entry["kernel"]: Resources(
            int(entry["registers"]), int(entry["stack"]), int(entry["stored"]) + int(entry["loaded"])
        )
        for entry in _ENTRY.finditer(log)
    }


def main(architectures: list[str]) -> None:
    """Print the table."""
    print(f"{'kernel':<50} {'real':<8} {'GPU':<7} registers  stack  spilled")
    for architecture in architectures:
        for name in KERNEL_FILES:
            for real in ("float32", "float64"):
                for kernel, taken in sorted(resources(name, architecture, real).items()):
                    figures = f"{taken.registers:>9}  {taken.stack:>5}  {taken.spilled:>7}"
                    print(f"{f'{name}.{kernel}':<50} {real:<8} {architecture:<7} {figures}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["sm_90"])
