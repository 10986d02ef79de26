"""Code for generic CPUs: which one a process takes, and that shipped code is found."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnbackend.backends.numba import NumbaBackend, targets
from nnbackend.backends.numba.cache_folders import CacheFolders
from nnbackend.backends.numba.tile_shape import VectorUnit
from nnbackend.cli import main
from tests.backends.steps import x86_only


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """``machine(features, *found, wanted="", numba=None, compiling=False)``: a process that has chosen no target, on a
    CPU with these features, with code for the targets `found` on disk."""

    def machine(features, *found, wanted="", numba=(None, None), compiling=False):
        monkeypatch.setenv("NNBACKEND_TARGET", wanted)
        monkeypatch.setattr(targets._config, "CPU_NAME", numba[0])
        monkeypatch.setattr(targets._config, "CPU_FEATURES", numba[1])
        monkeypatch.setattr(targets.llvm, "get_host_cpu_name", lambda: "zen9")
        monkeypatch.setattr(targets._codegen, "get_host_cpu_features", lambda: features)
        monkeypatch.setattr(targets, "_is_compiling", lambda: compiling)
        monkeypatch.setattr(targets, "_is_selected", lambda: False)
        monkeypatch.setattr(targets, "cache_folders", lambda: CacheFolders((tmp_path / "none", tmp_path), tmp_path))
        for path in tmp_path.iterdir():
            path.rmdir()
        for name in found:
            (tmp_path / name).mkdir()

    return machine


V3, V4 = (f"+mmx,{targets.TARGETS[name].features},+sha" for name in ("x86-64-v3", "x86-64-v4"))
NEOVERSE = f"+aes,{targets.TARGETS['neoverse-n1'].features}"
OWN = {features: targets._name("zen9", features) for features in (V3, V4, NEOVERSE)}


@pytest.mark.parametrize(
    ("features", "found", "expected"),
    [
        (V4, [], OWN[V4]),
        (V4, ["x86-64-v2", "x86-64-v3", "x86-64-v4"], "x86-64-v4"),
        (V3, ["x86-64-v2", "x86-64-v3", "x86-64-v4"], "x86-64-v3"),
        (V3, ["x86-64-v4", "neoverse-n1", OWN[V4]], OWN[V3]),
        (V4, ["x86-64-v4", OWN[V4]], OWN[V4]),
        (NEOVERSE, ["x86-64-v2", "neoverse-n1"], "neoverse-n1"),
    ],
)
def test_the_nearest_target_with_code_on_disk_is_chosen(machine, features, found, expected):
    machine(features, *found)
    assert targets.problem() == (None, "")
    assert targets._choose() == expected


def test_the_environment_chooses(machine):
    machine(V4, "x86-64-v4", wanted="x86-64-v3")
    assert targets._choose() == "x86-64-v3"
    machine(V4, "x86-64-v4", wanted="native")
    assert targets._choose() == OWN[V4]
    machine(V4, "x86-64-v4", numba=("haswell", "+avx,+avx2,+fma"))
    assert targets._choose().startswith("native-haswell-")
    target = targets.TARGETS["x86-64-v3"]
    machine(V4, numba=(target.name, target.features), wanted="x86-64-v3")
    assert targets.problem() == (None, "")
    assert targets._choose() == "x86-64-v3"


def test_a_process_that_has_begun_to_compile_keeps_its_target(machine, caplog):
    machine(V4, "x86-64-v4", compiling=True)
    assert targets._choose() == OWN[V4]
    assert "kernels for x86-64-v4 are on disk, but are not used" in caplog.text


@pytest.mark.parametrize(
    ("given", "reason", "remedy"),
    [
        ({"wanted": "x86-64-v9"}, "=x86-64-v9 is no target", "Choose one of native, x86-64-v4"),
        ({"wanted": "x86-64-v4"}, "it lacks avx512bw, avx512cd, avx512dq, avx512f, avx512vl", "Choose another of"),
        ({"wanted": "x86-64-v3", "numba": ("haswell", None)}, "name two targets", "Unset one"),
        ({"wanted": "x86-64-v3", "compiling": True}, "was given functions before", "Call nnbackend.get_backend"),
    ],
)
def test_a_target_that_a_process_cannot_have_is_refused(machine, given, reason, remedy):
    machine(V3, **given)
    problem = targets.problem()
    assert reason in problem[0]
    assert remedy in problem[1]


def test_tiles_follow_the_target():
    units = {
        name: VectorUnit.described("x86_64-unknown-linux-gnu", targets.TARGETS[name].features)
        for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4")
    }
    assert units == {
        "x86-64-v2": VectorUnit(16, 16, fused=False),
        "x86-64-v3": VectorUnit(32, 16, fused=True),
        # As on Intel's CPUs, because any may run it.
        "x86-64-v4": VectorUnit(64, 32, fused=True, shuffles=False),
    }


def test_a_pickled_backend_has_the_target_of_the_process_that_reads_it(monkeypatch):
    """Otherwise its checkpoints would name a CPU for which they were not computed."""
    written = pickle.dumps(NumbaBackend(threads=1))
    # As if this were another process.
    monkeypatch.setattr(NumbaBackend, "target", "x86-64-v9")
    assert pickle.loads(written).target == "x86-64-v9"


def test_one_process_compiles_for_one_target(monkeypatch, capsys):
    monkeypatch.setenv("NNBACKEND_TARGET", "")
    name = "x86-64-v2" if targets.selected() != "x86-64-v2" else "x86-64-v3"
    assert main(["warmup", "--target", name]) == 2
    assert f"--target {name} needs a new process" in capsys.readouterr().err


#: `nnbackend warmup` with a single kernel in the place of all networks.
WARM_UP = """
import sys
from types import SimpleNamespace
import numpy as np
from nnbackend.cli import main, warmup

def networks(backend, dtype):
    from nnbackend.backends.numba import compiled
    run = lambda: compiled.address_of("bias_gradient", np.dtype(dtype))
    yield SimpleNamespace(executor="compiled", loss="", data="", optimizer="", run=run)

warmup.warmup_networks = networks
sys.exit(main(["warmup", "--target", "x86-64-v3", "--dtype", "float32"]))
"""
LOAD = """
import sys
import nnbackend
import numpy as np
from nnbackend.backends.numba import compiled, tile_shape
address = compiled.address_of("bias_gradient", np.dtype("float32"))
print(nnbackend.__file__, nnbackend.get_backend("numba").target, tile_shape.FLOAT32.lanes)
print(compiled._callback("bias_gradient", np.dtype("float32"), None).cache_hits)
"""


@pytest.mark.slow
@x86_only
@pytest.mark.skipif(not targets.TARGETS["x86-64-v3"].is_here, reason="this CPU has less")
def test_shipped_code_is_found(tmp_path: Path):
    """After the cache and the package were copied elsewhere and touched, as in a container image."""
    built, shipped, package = tmp_path / "built", tmp_path / "shipped", tmp_path / "package"
    printed = in_a_process(WARM_UP, Path(targets.__file__).parents[3], built)
    assert printed.startswith(f"kernels for x86-64-v3 are cached in {built.resolve()}")
    shutil.copytree(built, shipped, copy_function=shutil.copy)
    source = Path(targets.__file__).parents[2]
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, package / "nnbackend", copy_function=shutil.copy, ignore=ignored)
    for path in shipped.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    place, target, lanes, hits = in_a_process(LOAD, package, shipped).split()
    assert Path(place).is_relative_to(package)
    assert (target, lanes, hits) == ("x86-64-v3", "8", "1")
    for path in shipped.rglob("*"):
        path.chmod(0o755)


def in_a_process(script: str, path: Path, cache: Path) -> str:
    names = ("NNBACKEND_TARGET", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"PYTHONPATH": str(path), "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=cache.parent, env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
