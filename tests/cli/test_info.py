"""`nnbackend info`, and `nnbackend bench`."""

from __future__ import annotations

import re

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli.machine import cpu_features, kernel_advice
from tests.cli.commands import error, in_a_process, nnbackend

# ---- train ---------------------------------------------------------------------------------------------------

AVX512 = {"avx2", "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def test_info_lists_backends_packages_blas_and_caches() -> None:
    result = nnbackend("info", NNBACKEND_DATA_DIR="/no/such/folder")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    output = result.stdout
    for info in nn.available_backends():
        # Without the number of threads, which may differ in the command's process.
        what = re.escape((info.device or info.reason).partition(", ")[0])
        line = rf"^  {info.name} +{'usable +on' if info.usable else 'not usable'} +{what}"
        assert re.search(line, output, re.MULTILINE)
        assert info.remedy in output
    assert re.search(rf"^  numpy +{re.escape(np.__version__)}$", output, re.MULTILINE)
    assert re.search(r"^  cores +\d+ usable of \d+$", output, re.MULTILINE)
    assert re.search(r"^  NNBACKEND_DATA_DIR +/no/such/folder \(there is no such folder\)$", output, re.MULTILINE)
    assert "\nBLAS" in output
    assert not [line for line in output.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize(
    ("library", "architecture", "features", "advised"),
    [
        ("openblas", "Haswell", AVX512, True),
        ("openblas", "Zen", AVX512, True),
        ("openblas", "SkylakeX", AVX512, False),
        ("openblas", "Haswell", {"avx2"}, False),
        ("openblas", "Haswell", AVX512 - {"avx512vl"}, False),
        ("mkl", "Haswell", AVX512, False),
        ("openblas", "neoversen1", {"asimd"}, False),
    ],
)
def test_blas_advice(library: str, architecture: str, features: set[str], advised: bool) -> None:
    advice = kernel_advice(library, architecture, features)
    assert ("OPENBLAS_CORETYPE=SKYLAKEX" in advice) is advised
    assert bool(advice) is advised


def test_info_gives_advice_if_openblas_does_not_use_avx512() -> None:
    result = in_a_process("info", OPENBLAS_CORETYPE="Haswell")
    if not re.search(r"^  kernels  Haswell$", result.stdout, re.MULTILINE):
        pytest.skip("NumPy's BLAS is not an OpenBLAS with Haswell kernels")
    assert ("ADVICE" in result.stdout) is (cpu_features() >= AVX512)


@pytest.mark.slow
def test_bench_measures_the_three_nets_and_says_why_not() -> None:
    result = nnbackend("bench", "--seconds", "0.05", "--backend", "numpy")
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    measured = [row for row in rows if row and row[0].startswith("784-")]
    assert [row[:4] for row in measured] == [
        ["784-40-10", "sgd", "100", "numpy"],
        ["784-200-80-10", "sgd", "256", "numpy"],
        ["784-500-1000-300-10", "adam", "100", "numpy"],
    ]
    for row in measured:
        samples, step = (float(cell.replace(",", "")) for cell in row[4:])
        assert samples * step / 1e6 == pytest.approx(float(row[2]), rel=0.01)
        assert samples > 0
    for info in nn.available_backends():
        if not info.usable:
            message = error(nnbackend("bench", "--seconds", "0.05", "--backend", info.name))
            assert info.reason in message
