"""The compiled executor on other processors, and in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnbackend.backends.numba.tile_shape import VectorUnit
from tests.backends.steps import x86_only

LESSER = """
import sys
from nnbackend.backends.numba.tile_shape import FLOAT32, FLOAT64, VectorUnit
from nnbackend.testing import CASES, Lab
from nnbackend.testing.lab import Shape
from tests.backends.steps import ThroughTheTable

unit, dtype = VectorUnit.of_this_cpu(), sys.argv[1]
print(unit.width, unit.fused, 4 * FLOAT32.lanes, 8 * FLOAT64.lanes, FLOAT32.fused, FLOAT64.fused)
backend = ThroughTheTable(threads=1)
for name in sys.argv[2:]:
    for shape in (Shape(1, 1, 1), Shape(7, 17, 10), Shape(33, 65, 40), Shape(40, 150, 33)):
        CASES[name](Lab(backend, dtype, shape))
print(ThroughTheTable.refused)
"""
#: What is computed with vectors of the CPU's width.
VECTOR_CASES = (
    "dense_layers", "dense_gradients", "activations", "activations_of_large_inputs", "activations_pass_nan_on",
    "activation_gradients", "softmax_cross_entropy_of_labels", "sigmoid_cross_entropies", "sgd_updates",
    "adam_updates", "rmsprop_updates",
)  # fmt: skip


@pytest.mark.slow
@x86_only
@pytest.mark.parametrize(
    ("cpu", "features", "unit", "dtype"),
    [
        ("haswell", "+sse4.2,+avx,+avx2,+fma", VectorUnit(32, 16, True), "float32"),
        ("sandybridge", "+sse4.2,+avx", VectorUnit(32, 16, False), "float64"),
        ("nehalem", "+sse4.2", VectorUnit(16, 16, False), "float32"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalnum() else "",
)
def test_lesser_processors_do_what_the_contract_says(cpu, features, unit, dtype, pytestconfig):
    """Without fused multiply-adds above all: this one has them, and hides what only they make right. Unchanged sources
    are not compiled again."""
    here = VectorUnit.of_this_cpu()
    if unit.width > here.width or unit.fused > here.fused:
        pytest.skip(f"this CPU has less: {here}")
    forced = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    kept = pytestconfig.cache.mkdir(f"kernels-{cpu}")
    output = in_a_process_of_its_own(LESSER, dtype, *VECTOR_CASES, cache=kept, **forced)
    fused = str(unit.fused)
    assert output.split() == [str(unit.width), fused, str(unit.width), str(unit.width), fused, fused, "0"]


HITS = """
import numpy as np
from nnbackend.backends.numba import compiled
from nnbackend.backends.numba.updates import MOMENTUM, SGD

kept, compiled_callback = [], compiled.compiled
compiled.compiled = lambda callback: kept.append(compiled_callback(callback)) or kept[-1]
for rule in (SGD, MOMENTUM):
    compiled.address_of("bias_gradient", np.dtype("float32"), rule)
    print(kept[-1].cache_hits)
"""


@pytest.mark.slow
def test_operations_are_compiled_once_for_all_processes(tmp_path):
    """Each update has a file of its own."""
    first, second = (in_a_process_of_its_own(HITS, cache=tmp_path) for _ in range(2))
    assert first.split() == ["0", "0"]
    assert second.split() == ["1", "1"]


def in_a_process_of_its_own(script, *arguments, cache, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        # Where `tests` can be imported.
        cwd=Path(__file__).parents[2],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
