"""Every name of CuPy that the package uses exists in the installed CuPy, and accepts our arguments.

CuPy imports without a GPU. The names are collected from our source, so new ones are checked automatically.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import reduce
from importlib.resources import files

import numpy as np
import pytest

cupy = pytest.importorskip("cupy", reason="CuPy is not installed")

PACKAGE = files("nnbackend.backends.cupy")
# The types of our variables.
TYPES = {
    "self._stream": cupy.cuda.Stream,
    "self._module": cupy.RawModule,
    "out": cupy.ndarray,
    "array": cupy.ndarray,
    "source": cupy.ndarray,
    "a": cupy.ndarray,
    "b": cupy.ndarray,
    "c": cupy.ndarray,
    "self._workspace": cupy.ndarray,
}
# Attributes of instances, which the class does not have, and names that need cuBLAS.
INSTANCE_ATTRIBUTES = {(cupy.cuda.Stream, "ptr")}
NEEDS_CUBLAS = {"cupy.cuda.cublas"}


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return None


def _tree(file: str) -> ast.AST:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def _chains(file: str) -> set[str]:
    """The longest dotted names."""
    found = {name for node in ast.walk(_tree(file)) if isinstance(node, ast.Attribute) and (name := _dotted(node))}
    return {name for name in found if not any(other.startswith(name + ".") for other in found)}


def _calls(file: str) -> list[tuple[str, ast.Call]]:
    calls = [node for node in ast.walk(_tree(file)) if isinstance(node, ast.Call)]
    return [(name, call) for call in calls if (name := _dotted(call.func))]


def _resolve(name: str):
    return reduce(getattr, name.split(".")[1:], cupy)


CUPY_NAMES = sorted(
    {name for name in _chains("runtime.py") if name.startswith("cupy.")}
    | {re.sub(r"^runtime\.", "cupy.cuda.runtime.", name) for name in _chains("probe.py") if name.startswith("runtime.")}
    | {name for name in _chains("probe.py") if name.startswith("cupy.")}
)
CUPY_CALLS = [(name, call) for name, call in _calls("runtime.py") if name.startswith("cupy.")]
OUR_VARIABLES = sorted(
    (variable, attribute)
    for name in _chains("runtime.py")
    for variable in TYPES
    if name.startswith(variable + ".")
    for attribute in [name[len(variable) + 1 :]]
)


def test_only_two_files_import_cupy():
    importing = set()
    for entry in PACKAGE.iterdir():
        if not entry.name.endswith(".py"):
            continue
        for node in ast.walk(_tree(entry.name)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Constant) and node.value == "cupy" and entry.name == "probe.py":
                names.append("cupy")  # importlib.import_module("cupy")
            if any(name.split(".")[0] in ("cupy", "cupyx", "cupy_backends") for name in names):
                importing.add(entry.name)
    assert importing == {"runtime.py", "probe.py"}


@pytest.mark.parametrize("name", CUPY_NAMES)
def test_name_exists(name):
    if name in NEEDS_CUBLAS:
        try:
            _resolve(name)
        except ImportError as error:
            pytest.skip(f"needs cuBLAS: {str(error).splitlines()[0]}")
    _resolve(name)


def test_names_were_found():
    assert {"cupy.zeros", "cupy.RawModule", "cupy.cuda.runtime.memcpy2DAsync", "cupy.cuda.Stream"} <= set(CUPY_NAMES)
    assert {"cupy.cuda.runtime.getDeviceCount", "cupy.cuda.runtime.driverGetVersion"} <= set(CUPY_NAMES)
    assert ("self._stream", "synchronize") in OUR_VARIABLES
    assert len(CUPY_CALLS) >= 7


@pytest.mark.parametrize(("variable", "attribute"), OUR_VARIABLES)
def test_attribute_exists(variable, attribute):
    kind = TYPES[variable]
    first = attribute.split(".")[0]
    assert hasattr(kind, first) or (kind, first) in INSTANCE_ATTRIBUTES
    if attribute.startswith("data."):
        assert hasattr(cupy.cuda.MemoryPointer, attribute.split(".")[1])


def _parameters(function) -> tuple[list[str], set[str]]:
    """Parameter names in order, and keyword-only names, from the docstring that Cython writes."""
    try:
        found = inspect.signature(function).parameters.values()
        keyword_only = {p.name for p in found if p.kind is p.KEYWORD_ONLY}
        return [p.name for p in found if p.name not in keyword_only], keyword_only
    except (ValueError, TypeError):
        text = re.search(r"\((.*?)\)(?: ->.*)?$", function.__doc__.split("\n")[0]).group(1)
    positional, keyword_only, target = [], set(), None
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name = part.split("=")[0].split()[-1]
        if name == "*":
            target = keyword_only
        elif target is None:
            positional.append(name)
        else:
            target.add(name)
    return positional, keyword_only


@pytest.mark.parametrize(("name", "call"), CUPY_CALLS, ids=[name for name, _ in CUPY_CALLS])
def test_call_fits_the_signature(name, call):
    function = _resolve(name)
    positional, keyword_only = _parameters(function.__init__ if name == "cupy.cuda.Stream" else function)
    positional = [parameter for parameter in positional if parameter != "self"]
    assert len(call.args) <= len(positional)
    assert {keyword.arg for keyword in call.keywords} <= set(positional[len(call.args) :]) | keyword_only
    if name.startswith("cupy.cuda.runtime."):
        assert len(call.args) == len(positional)


def test_kernels_can_be_called_with_a_stream():
    """The function behind a RawKernel takes ``shared_mem`` and ``stream``: a wrong keyword is rejected first."""
    function = cupy.cuda.Function.__new__(cupy.cuda.Function)
    with pytest.raises(TypeError, match="unexpected keyword"):
        function((1,), (1,), (np.int64(1),), shared_mem=0, stream=None, nonsense=1)
    assert hasattr(cupy.RawKernel, "kernel")
    try:
        device_count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        device_count = 0
    if device_count == 0:
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
            function((1,), (1,), (np.int64(1),), shared_mem=0, stream=None)


@pytest.mark.parametrize(("name", "value"), [("HostToDevice", 1), ("DeviceToHost", 2), ("DeviceToDevice", 3)])
def test_kinds_of_copies(name, value):
    assert getattr(cupy.cuda.runtime, f"memcpy{name}") == value


def test_importing_the_package_does_not_import_cupy():
    import subprocess
    import sys

    code = "import sys, nnbackend.backends.cupy; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
