"""The structure of the package: few rooms, imports that run one way, files and functions that fit a screen."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import nnbackend

ROOT = Path(nnbackend.__file__).parent
REPOSITORY = ROOT.parent

#: A network offers training, files and exports as methods, and an ensemble exports: the one reason for imports to run
#: upwards.
UPWARDS = {
    ("nnbackend.network", "nnbackend.training"),
    ("nnbackend.network", "nnbackend.interop"),
    ("nnbackend.ensembles.ensemble", "nnbackend.interop"),
}

MOST_ENTRIES, MOST_FLOORS = 26, 13
LONGEST_FILE, LONGEST_BODY = 450, 60


def modules() -> dict[str, Path]:
    """The package's modules by name."""
    paths = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports of the package: at its top, within functions, and for type checkers alone."""
    names = modules()
    return {
        name: {each for each in _imported(ast.parse(path.read_text()), names) if each != name}
        for name, path in names.items()
    }


def _imported(tree: ast.AST, names: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in names else node.module for full in inner.values()}
    return found & names.keys()


def circles(graph: dict[str, set[str]]) -> list[str]:
    """One circle for each place where a walk along the arrows meets itself."""
    found: list[str] = []
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> None:
        if node in path:
            found.append(" -> ".join([*path[path.index(node) :], node]))
        elif node not in done:
            for following in sorted(graph[node]):
                walk(following, [*path, node])
            done.add(node)

    for node in sorted(graph):
        walk(node, [])
    return found


def without_exception(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    return {
        name: {each for each in targets if not any(name == a and each.startswith(b) for a, b in UPWARDS)}
        for name, targets in graph.items()
    }


def rooms() -> dict[str, set[str]]:
    """The entries at the root of the package, and which of the others each imports."""

    def room(name: str) -> str:
        return name.split(".")[1] if "." in name else "__init__"

    graph: dict[str, set[str]] = {room(name): set() for name in imports()}
    for name, targets in without_exception(imports()).items():
        graph[room(name)] |= {room(each) for each in targets} - {room(name)}
    return graph


def test_few_entries_at_the_root():
    entries = [path.name for path in ROOT.iterdir() if path.name not in ("__pycache__", "py.typed")]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_no_circles_of_modules():
    assert circles(without_exception(imports())) == []


def test_no_circles_of_rooms():
    assert circles(rooms()) == []


def test_few_floors():
    graph = rooms()

    @cache
    def floor(room: str) -> int:
        return 1 + max((floor(each) for each in graph[room]), default=0)

    heights = {room: floor(room) for room in graph}
    assert max(heights.values()) <= MOST_FLOORS, sorted(heights.items(), key=lambda pair: pair[1])


def test_the_exception_is_one():
    """An import that no longer runs upwards is not named any more."""
    for name, target in UPWARDS:
        assert any(each.startswith(target) for each in imports()[name]), (name, target)


def sources() -> list[Path]:
    folders = ("nnbackend", "tests", "benchmarks", "examples", "docs")
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def test_files_are_short():
    lengths = {path.relative_to(REPOSITORY).as_posix(): len(path.read_text().splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_functions_fit_a_screen():
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                length = body[-1].end_lineno - body[0].lineno + 1
                if length > LONGEST_BODY:
                    long[f"{path.relative_to(REPOSITORY)}:{node.name}"] = length
    assert long == {}


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a -> b -> c -> a"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


PUBLIC = [name for name in nnbackend.__all__ if inspect.ismodule(getattr(nnbackend, name))]


def test_dir_shows_the_public_names_and_no_others():
    assert set(dir(nnbackend)) == {*nnbackend.__all__, "__version__"}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_module_has_its_public_names(name):
    module = getattr(nnbackend, name)
    assert module.__name__ == f"nnbackend.{name}"
    assert dir(module) == sorted(module.__all__)
    for each in dir(module):
        assert getattr(module, each) is not None


def test_help_shows_every_public_name():
    text = pydoc.plain(pydoc.render_doc(nnbackend))
    for name in nnbackend.__all__:
        assert re.search(rf"\b{name}\b", text), name


def test_help_without_scikit_learn(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn" or ".sklearn" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "MLPClassifier" not in dir(nnbackend)
    assert "class Dense" in pydoc.plain(pydoc.render_doc(nnbackend))
    with pytest.raises(ImportError, match="need scikit-learn"):
        nnbackend.MLPClassifier()
