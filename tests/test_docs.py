"""Checks of the documentation that do not need a build. `.ci/run` builds it, which runs the examples."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import nnbackend as nn

DOCS = Path(__file__).parents[1] / "docs"

#: Modules whose public names are listed on the API pages.
MODULES = ("augment", "datasets", "interop.c", "interop.keras", "interop.onnx", "interop.torch", "metrics", "plotting")

#: Constants, which are documented where they are used.
CONSTANTS = {"INPUT_DTYPES", "OPSET", "CASES", "METRICS"}


@pytest.fixture
def extension(monkeypatch):
    """Import an extension from docs/extensions/, as Sphinx does."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(DOCS / "extensions"))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def listed() -> set[str]:
    """All full names that the API pages list."""
    names: set[str] = set()
    for page in (DOCS / "api").glob("*.md"):
        module = ""
        for line in page.read_text().splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.split()[-1]
            elif re.fullmatch(r"   \w+", line):
                names.add(f"{module}.{line.strip()}")
    return names


def test_the_api_pages_list_every_public_name_and_no_other():
    wanted = {f"nnbackend.{name}" for name in nn.__all__ if not isinstance(getattr(nn, name), ModuleType)}
    for name in (*MODULES, "testing"):
        module = importlib.import_module(f"nnbackend.{name}")
        wanted |= {f"nnbackend.{name}.{public}" for public in module.__all__ if public not in CONSTANTS}
    assert wanted <= listed()
    for name in listed():
        module, _, public = name.rpartition(".")
        assert hasattr(importlib.import_module(module), public), name


def test_python_that_is_not_a_cell_runs_too():
    blocks = [
        block
        for page in [*DOCS.rglob("*.md"), DOCS.parent / "CONTRIBUTING.md", DOCS.parent / "examples" / "README.md"]
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert blocks
    for block in blocks:
        exec(block, {})


def test_links_of_a_mirrored_page_lead_to_the_same_file(extension, tmp_path):
    relinked = extension("mirrored").relinked
    for name in ("README.md", "examples/xor.py", "docs/speed.md", "docs/images/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pages = {"README.md": "index.md"}

    def links(text):
        return relinked(text, "examples/README.md", pages, tmp_path)

    assert links("[a](../README.md#top), [b](xor.py)") == "[a](index.md#top), [b](../examples/xor.py)"
    assert links("![a](../docs/images/a.png) [b](../docs/speed.md)") == "![a](images/a.png) [b](speed.md)"
    for text in ("[a](https://host/page)", "[a](#here)"):
        assert links(text) == text
    with pytest.raises(FileNotFoundError, match=r"examples/README\.md links to gone\.md"):
        links("[a](gone.md)")


def test_stars_of_shapes_are_escaped_and_those_of_code_are_not(extension):
    lines = ["x : (n, *input_shape) array_like", "of shape ``(n, *input_shape)``", "**options"]
    extension("stars").escape(None, "", "", None, None, lines)
    assert lines == [r"x : (n, \*input_shape) array_like", "of shape ``(n, *input_shape)``", "**options"]


def test_a_published_dashboard_is_part_of_the_site(extension, tmp_path):
    dashboard = extension("dashboard")
    app = SimpleNamespace(srcdir=tmp_path / "docs", outdir=tmp_path / "site", builder=SimpleNamespace(format="html"))
    dashboard.copy(app, None)
    assert not (tmp_path / "site").exists()
    (tmp_path / ".asv" / "html" / "graphs").mkdir(parents=True)
    (tmp_path / ".asv" / "html" / "index.html").write_text("figures")
    dashboard.copy(app, ValueError("the build failed"))
    assert not (tmp_path / "site").exists()
    dashboard.copy(app, None)
    assert (tmp_path / "site" / "asv" / "index.html").read_text() == "figures"


def test_the_design_follows_a_minibatch_in_at_most_ten_stops():
    section = (DOCS / "design.md").read_text().split("## One minibatch")[1].split("\n## ")[0]
    stops = re.findall(r"^(\d+)\. \[`([\w.]+)`\]\((\S+)\)", section, re.MULTILINE)
    assert [int(number) for number, *_ in stops] == list(range(1, len(stops) + 1))
    assert len(stops) == len(re.findall(r"^\d+\.", section, re.MULTILINE)) <= 10
    for _, name, target in stops:
        source = (DOCS / target).read_text()
        for part in name.split("."):
            assert re.search(rf"(def|class) {part}\b", source), f"{target} does not define {name}"
