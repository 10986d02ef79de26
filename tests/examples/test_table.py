"""The results table, in the document as printed."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.tutorials import table as command
from benchmarks.tutorials.systems import SYSTEMS
from nnbackend.cli.examples import folder, summaries


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    return tmp_path


def test_every_example_has_its_rows():
    assert {system.number: system.name for system in SYSTEMS} == {
        summary.partition(":")[0]: name for name, summary in summaries().items()
    }


def test_the_document_has_the_table_as_the_command_prints_it():
    text = (folder() / "README.md").read_text()
    shown = re.search(r"<!-- table -->\n(.*)\n<!-- end of table -->", text, re.DOTALL)[1]
    assert shown == command.table(["numpy", "numba"])
    assert "not run" not in shown


def test_figures_are_medians_and_ranges_and_times_medians(results):
    runs = {str(seed): {"accuracy": value} for seed, value in enumerate((0.99, 0.97, 0.98))}
    (results / "numpy.json").write_text(json.dumps({"S3": runs, "machine": "an abacus"}))
    seconds = {"tutorial": [3.0, 1.0, 2.0], "numpy": [0.5, 0.25, 9.0]}
    (results / "times.json").write_text(json.dumps({"S3": seconds, "machine": "a slide rule"}))
    printed = command.table(["numpy"])
    row = next(line for line in printed.splitlines() if line.startswith("| S3 "))
    assert row == (
        "| S3 [xor](xor.py) | training accuracy | 100 % | 98.00 % (97.00 % to 99.00 %) | 10,000 steps | 2 s | 0.5 s |"
    )
    assert "| S4 [iris](iris.py) | train | 98.33 % | not run |  |  |  |" in printed
    assert (
        "\nMedians and ranges of 0 or 3 seeds (S10 and S11: one); times are medians of 3 rounds in turns.\n" in printed
    )
    assert printed.endswith("\nTimes were taken on a slide rule.")


def test_runs_are_kept_and_not_run_again(results, monkeypatch):
    (system,) = (system for system in SYSTEMS if system.number == "S6")
    command.run_seeds(system, "numpy", 2, fresh=False)
    kept = json.loads((results / "numpy.json").read_text())
    assert [run["right"] for run in kept["S6"].values()] == [10, 10]
    command.run_times(system, ["numpy"], fresh=False)
    times = json.loads((results / "times.json").read_text())
    assert set(times["S6"]) == {"tutorial", "numpy"}
    assert all(len(seconds) == command.ROUNDS and min(seconds) > 0 for seconds in times["S6"].values())

    def never(*arguments):
        raise AssertionError("run again")

    with monkeypatch.context() as patch:
        patch.setattr(command, "example", never)
        command.run_seeds(system, "numpy", 2, fresh=False)
        command.run_times(system, ["numpy"], fresh=False)
        with pytest.raises(AssertionError, match="run again"):
            command.run_seeds(system, "numpy", 3, fresh=False)
    command.run_seeds(system, "numpy", 1, fresh=True)
    assert list(json.loads((results / "numpy.json").read_text())["S6"]) == ["0"]
