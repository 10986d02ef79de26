"""Compile exported C headers and run them."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np

from nnbackend.interop.c import export, function_name

__all__ = ["FLAGS", "check", "compile_c", "run"]

#: Warnings are errors, also of implicit conversions, which are expensive on small processors.
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wshadow", "-Wdouble-promotion", "-Wfloat-conversion")

#: Elements before and after each array, which must not change.
_GUARD = 64

_NUMBERS = itertools.count()

_WRAPPER = """\
#include "{file}"
long sizes[3] = {{ {macro}_INPUTS, {macro}_OUTPUTS, {macro}_WORKSPACE }};
void run(const void *input, void *output, void *workspace);
void run(const void *input, void *output, void *workspace) {{ {name}(input, output, workspace); }}
"""


def compile_c(source: Path, program: Path, *options: str) -> None:
    """Compile a file with gcc; its warnings are errors."""
    compiler = shutil.which("gcc")
    assert compiler is not None
    command = [compiler, *FLAGS, *options, str(source), "-o", str(program), "-lm"]
    subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)


def run(path, x, dtype, *options: str):
    """The outputs of an exported function for these rows, (n, outputs)."""
    name = function_name(path)
    wrapper = path.with_suffix(".c")
    wrapper.write_text(_WRAPPER.format(file=path.name, name=name, macro=name.removesuffix("_predict").upper()))
    # A name of its own, because the loader does not open a library again.
    library = path.with_name(f"{next(_NUMBERS)}.so")
    compile_c(wrapper, library, "-O1", "-fPIC", "-shared", *options)
    loaded = ctypes.CDLL(str(library))
    inputs, outputs, workspace = (ctypes.c_long * 3).in_dll(loaded, "sizes")
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    assert rows.shape[1] == inputs
    results = np.empty((len(rows), outputs), dtype)
    for row, result in zip(rows, results, strict=True):
        # NaN shows what is read before it is written.
        memory = [np.full(size + 2 * _GUARD, np.nan, dtype) for size in (outputs, workspace)]
        places = [ctypes.c_void_p(each[_GUARD:].ctypes.data) for each in memory]
        loaded.run(ctypes.c_void_p(row.ctypes.data), *places)
        for each in memory:
            assert np.isnan(each[:_GUARD]).all()
            assert np.isnan(each[-_GUARD:]).all()
        result[...] = memory[0][_GUARD:-_GUARD]
    return results


def check(net, x, path, input_dtype=None):
    """Export, compile, run, and compare with `predict`: the tolerances are relative to the row's largest output."""
    export(net, path, input_dtype)
    expected = net.predict(x).reshape(len(x), -1)
    received = run(path, x, net.dtype, "-fsanitize=undefined", "-fno-sanitize-recover=all")
    largest = np.abs(expected).max(axis=1, keepdims=True)
    difference = np.abs(received.astype(np.float64) - expected).max(axis=1, keepdims=True)
    tolerance = 1e-5 if net.dtype == np.float32 else 1e-12
    assert (difference <= tolerance * largest).all(), (difference / largest).max()
