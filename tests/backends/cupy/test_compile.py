"""Every ``.cu`` file compiles for the GPUs we support, without a warning, and takes no more of them than there is."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nnbackend.backends.cupy import launches
from nnbackend.backends.cupy.kernels import KERNEL_FILES, kernel_options, kernel_source
from tests.backends.cupy import nvrtc, registers
from tests.backends.cupy.build import parse_kernels

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")
# What CuPy adds on its own.
CUPY_OPTIONS = ("-ftz=true",)


@pytest.fixture(scope="module", autouse=True)
def _needs_nvrtc():
    if reason := nvrtc.why_not():
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", KERNEL_FILES)
def test_compiles_without_a_warning_or_a_spill(name, architecture, real, pytestconfig):
    """And the largest block's threads have registers enough. What has not changed is not compiled again."""
    options = (*kernel_options(np.dtype(real)), *CUPY_OPTIONS, f"--gpu-architecture={architecture}")
    folder = pytestconfig.cache.mkdir("nvrtc")
    cubin, log = nvrtc.kept_cubin(folder, kernel_source(name), f"{name}.cu", (*options, "--ptxas-options=-v"))
    assert [line for line in log.splitlines() if not re.match(r"ptxas (info  |       ) *[:.]", line)] == []
    assert cubin.startswith(b"\x7fELF")
    taken = registers.read(log)
    assert set(taken) == _kernels(name)
    largest = max(launches.column_sums(1, 1, 1).threads, launches.ONE_BLOCK.threads, launches.elements(1 << 20).threads)
    for kernel, figures in taken.items():
        assert kernel.encode() in cubin
        assert figures.spilled == 0, kernel
        assert figures.registers * largest <= 65_536, kernel


def test_another_source_is_compiled_again(tmp_path):
    options = ("--gpu-architecture=sm_80",)
    source = 'extern "C" __global__ void first(float* a) { a[0] = 1; }'
    first = nvrtc.kept_cubin(tmp_path, source, "a.cu", options)
    assert nvrtc.kept_cubin(tmp_path, source, "a.cu", options) == first
    assert len(list(tmp_path.iterdir())) == 1
    second, _ = nvrtc.kept_cubin(tmp_path, source.replace("first", "second"), "a.cu", options)
    assert b"second" in second
    assert b"first" not in second
    assert len(list(tmp_path.iterdir())) == 2


def _kernels(name):
    """The names of a file's kernels, those made by a macro among them."""
    source = kernel_source(name)
    made = re.findall(r"^ACTIVATION\((\w+), \w+\)", source, re.MULTILINE)
    kinds = re.findall(r'extern "C" __global__ void name##(\w+)\(', source)
    written = re.findall(r'^extern "C" __global__ void (\w+)\(', source, re.MULTILINE)
    return {*written, *(f"{one}{kind}" for one in made for kind in kinds)}


@pytest.mark.parametrize("name", ["activations", "batch", "dropout", "losses", "normalization"])
def test_float32_kernels_do_not_compute_in_double(name):
    """A literal without its type would do it, unnoticed and, on many GPUs, 64 times slower."""
    options = (*kernel_options(np.dtype("float32")), "--gpu-architecture=compute_80")
    assembly = nvrtc.compile_ptx(kernel_source(name), f"{name}.cu", options)
    assert ".f32" in assembly
    assert not re.findall(r"\b(?:add|sub|mul|fma|div|sqrt|rcp)\.(?:\w+\.)?f64\b", assembly)


def test_a_warning_would_be_seen():
    source = 'extern "C" __global__ void f(int* out) { int unused; out[0] = 1u < -1; }'
    _, log = nvrtc.compile_cubin(source, "warning.cu", ("--gpu-architecture=sm_90",))
    assert "warning" in log


def test_an_error_names_file_and_line():
    broken = kernel_source("updates").replace("(real)learning_rates[counter[0]]", "nonsense", 1)
    with pytest.raises(RuntimeError, match=r"updates\.cu\(\d+\): error.*nonsense"):
        nvrtc.compile_cubin(broken, "x.cu", ("--gpu-architecture=sm_90", "-DREAL=float"))


def test_the_kernel_files_are_all_there_is():
    from importlib.resources import files

    folder = files("nnbackend.backends.cupy") / "cuda"
    assert {entry.name for entry in folder.iterdir()} == {f"{name}.cu" for name in KERNEL_FILES} | {"common.cuh"}


def test_kernels_keep_to_what_the_cpu_build_knows():
    """No CUDA headers, inline assembly, grid barriers, or adding with atomics, whose order would change results."""
    for name in KERNEL_FILES:
        source = re.sub(r"//.*", "", kernel_source(name))
        assert not re.search(r"#\s*include|\basm\b|cooperative_groups|\batomic\w+", source), name


def test_parser_reads_signatures():
    kernels = parse_kernels(
        "typedef float real; typedef long long int64;\n"
        'extern "C" __global__ void f(const real* __restrict__ x, int64 n, double a, unsigned char *b) {'
    )
    found = [(p.name, p.dtype.name, p.pointer) for p in kernels["f"]]
    assert found == [("x", "float32", True), ("n", "int64", False), ("a", "float64", False), ("b", "uint8", True)]
