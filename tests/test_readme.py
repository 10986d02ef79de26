"""The README's Python runs as it stands there, and its files are in the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_links_and_pictures_are_there():
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
