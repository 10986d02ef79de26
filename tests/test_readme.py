"""The README's example runs, what it states is true, and its files are in the repository."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nnbackend.support.extras import install_command

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "examples/README.md",
        "docs/performance.md",
        "docs/gpu_step.md",
        "docs/checkpoints.md",
        "docs/scale-out.md",
        "docs/scaling.md",
    )
]


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"'accuracy': ([\d.]+)", done.stdout)[1])
    assert accuracy > 0.9
    assert "numpy: usable on" in done.stdout
    assert (tmp_path / "digits.safetensors").exists()


def test_the_core_has_as_many_lines_as_stated():
    paragraph = next(part for part in TEXT.split("\n\n") if part.startswith("The core is short enough to read"))
    stated = int(re.search(r"about ([\d,]+) lines", paragraph)[1].replace(",", ""))
    named = [ROOT / name for name in re.findall(r"`(nnbackend/[\w/.]+)`", paragraph)]
    files = [file for path in named for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    assert len(named) == 5
    lines = sum(len(file.read_text().splitlines()) for file in files)
    assert abs(lines - stated) <= 0.2 * stated, f"{lines:,} lines, the README states about {stated:,}"


def test_it_states_the_python_that_is_needed():
    minimum = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert f"Python {minimum} or newer" in TEXT


def test_no_document_installs_from_an_index():
    """There is no package on an index: commands have to work in a checkout."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.*")]
    sources = [*(ROOT / "nnbackend").rglob("*.py"), *pages, ROOT / "pyproject.toml", ROOT / "asv.conf.json"]
    assert len(sources) > 100
    for path in sources:
        text = path.read_text()
        assert not re.search(r"pip install [^\n]*nnbackend(\[|$)", text, re.MULTILINE), path
        # There is no address of the repository, the package or its pages yet, so none may be named.
        addresses = re.findall(r"(?:https?://|git@|git clone )[^\s)\"'>]+", text)
        assert [address for address in addresses if "nnbackend" in address] == [], path


def test_commands_install_extras_that_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    folders = [ROOT / name for name in ("nnbackend", "docs", "examples", "benchmarks", "tests")]
    paths = [path for folder in folders for kind in ("py", "md", "ipynb") for path in folder.rglob(f"*.{kind}")]
    named = set()
    for path in [*ROOT.glob("*.md"), ROOT / ".ci" / "run", *paths]:
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"pip install [^\n]*?\.\[([\w,]+)\]", text):
            named |= set(found.split(","))
        named |= set(re.findall(r"""install_command\(["'](\w+)["']\)""", text))
    assert len(named) > 10
    assert named <= extras


def test_messages_say_where_the_command_works():
    """With the same words everywhere: those of `install_command`."""
    words = re.escape(install_command("demo")).replace("demo", r"[\w{}]+")
    for path in [*(ROOT / "nnbackend").rglob("*.py"), *(ROOT / "examples").glob("*.py")]:
        text = path.read_text()
        assert len(re.findall(r'pip install -e "', text)) == len(re.findall(words, text)), path


def test_links_and_pictures_exist():
    count = 0
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if "://" not in target:
                count += 1
                assert (document.parent / target).exists(), f"{document} links to {target}"
    assert count >= 20


def test_files_and_commands_the_documents_name_exist():
    for document in DOCUMENTS:
        for name in re.findall(r"`((?:nnbackend|tests|benchmarks|examples)/[\w/.]+)`", document.read_text()):
            assert (ROOT / name).exists(), f"{document} names {name}"
