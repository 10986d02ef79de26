"""Importing the package brings in NumPy and nothing heavier; a backend brings in its own library only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nnbackend

ROOT = Path(nnbackend.__file__).parent
HEAVY = ("numba", "llvmlite", "cupy", "scipy", "sklearn", "matplotlib", "rich", "pandas", "requests")
HEAVY += ("onnx", "onnxruntime", "torch", "keras", "IPython", "tensorboard")
HEAVY += ("safetensors", "PIL", "mlxtend", "threadpoolctl", "platformdirs", "http", "urllib.request", "argparse")
HEAVY += ("starlette", "uvicorn", "asyncio", "mpi4py")


def imported_after(code: str) -> set[str]:
    script = f"import numpy, sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    modules = imported_after("import nnbackend")
    assert "nnbackend.network" in modules
    assert not modules & set(HEAVY)


def test_a_numpy_network_needs_numpy_alone():
    code = """
import numpy as np, nnbackend as nn
net = nn.Network([nn.Dense(3, activation="relu"), nn.Dense(2)], 4, backend="numpy")
net.fit(np.ones((8, 4)), np.zeros(8, int), epochs=1, loss="softmax_cross_entropy", verbose=False)
net.predict(np.ones((1, 4)))
"""
    # threadpoolctl is a single small file: it keeps BLAS's threads off the backend's own.
    assert not imported_after(code) & set(HEAVY) - {"threadpoolctl", "argparse"}


def test_subpackages_are_imported_on_access():
    code = "import nnbackend as nn; nn.plotting.plot_loss, nn.datasets.load, nn.LiveCurves, nn.TensorBoard"
    modules = imported_after(code)
    assert {"nnbackend.plotting", "nnbackend.interop.notebook", "nnbackend.interop.tensorboard"} <= modules
    assert not modules & {"matplotlib", "IPython", "tensorboard"}


def test_the_edges_import_their_libraries_only_when_used():
    modules = imported_after("import nnbackend.interop.onnx, nnbackend.interop.torch, nnbackend.interop.keras")
    assert "nnbackend.interop.onnx" in modules
    assert not modules & set(HEAVY)


@pytest.mark.slow
def test_estimators_import_scikit_learn_and_no_backend():
    modules = imported_after("import nnbackend as nn; nn.MLPClassifier")
    assert "sklearn" in modules
    assert not modules & {"numba", "cupy", "matplotlib"}


def test_the_numba_backend_does_not_import_cupy():
    modules = imported_after("import nnbackend as nn; nn.get_backend('numba')")
    assert "numba" in modules
    assert "cupy" not in modules


@pytest.mark.parametrize("library", ["numba", "cupy"])
def test_only_its_backend_imports_an_array_library(library):
    for path in ROOT.rglob("*.py"):
        names = {name.partition(".")[0] for name in _imports(path)}
        assert library not in names or f"backends/{library}" in path.as_posix(), path


def test_only_its_backend_and_its_exchange_import_pytorch():
    for path in ROOT.rglob("*.py"):
        names = {name.partition(".")[0] for name in _imports(path)}
        inside = path.parent.name == "torch" or path.name == "torch.py"
        assert inside or "torch" not in names, path


def test_only_the_page_imports_the_libraries_of_its_server():
    for path in ROOT.rglob("*.py"):
        names = {name.partition(".")[0] for name in _imports(path)}
        assert not names & {"starlette", "uvicorn"} or path.parent.name == "web", path


def test_layers_import_no_array_library():
    for path in (ROOT / "layers").glob("*.py"):
        assert "numpy" not in {name.partition(".")[0] for name in _imports(path)}, path


def _imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # In `from nnbackend import datasets`, the alias is the subpackage.
            names += (
                [f"nnbackend.{alias.name}" for alias in node.names] if node.module == "nnbackend" else [node.module]
            )
    return names


#: What a usual machine with a GPU has, and what these packages import.
ON_GPU_MACHINES = (
    "numpy", "cupy", "cupyx", "cupy_backends", "fastrlock", "pytest", "_pytest", "pluggy", "iniconfig", "packaging",
    "pygments", "py", "threadpoolctl", "nnbackend", "tests", "benchmarks",
)  # fmt: skip
LEAN = """
import sys
from importlib.abc import MetaPathFinder

class Lean(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in allowed and "_" not in top[:1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

allowed = set(sys.argv[1:])
sys.meta_path.insert(0, Lean())
import benchmarks.gpu
import benchmarks.gpu_first
import tests.backends.cupy.emulator
import tests.conftest
import tests.gpu.test_device
import tests.gpu.test_sanitizer
"""


def test_what_runs_on_a_gpu_needs_few_packages():
    done = subprocess.run(
        [sys.executable, "-c", LEAN, *ON_GPU_MACHINES], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
