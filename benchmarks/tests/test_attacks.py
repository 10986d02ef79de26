"""Short versions of the attacks of `python -m benchmarks.attacks`, except for the kills, of which none is left out."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

import pytest

from benchmarks.attacks.damage import damage_files
from benchmarks.attacks.disk import fill_the_disk
from benchmarks.attacks.ranks import KINDS, fail_ranks, mpi_is_missing
from benchmarks.attacks.runs import incomplete_files
from benchmarks.attacks.two_runs import PAIRS, start_two
from benchmarks.attacks.writes import WORKS, Work, kill_at_every_write

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_whatever_is_killed_at_any_operation_goes_on(name: str):
    tried, wrong = kill_at_every_write(WORKS[name])
    assert tried > 5
    assert wrong == []


def test_incomplete_files_and_other_results_are_found():
    def write(folder: Path) -> None:
        for name in ("a.json", "b.json"):
            with os.fdopen(os.open(folder / name, os.O_CREAT | os.O_WRONLY), "wb") as stream:
                stream.write(b'{"a": 1}')

    def names(folder: Path) -> list[str]:
        return sorted(os.listdir(folder))

    tried, wrong = kill_at_every_write(Work(lambda folder: None, write, names))
    assert tried == 4
    assert [text.partition(": ")[0] for text in wrong] == [
        "after 1 operations",
        "after 1 operations",
        "after 2 operations",
        "after 3 operations",
    ]
    assert "a.json: Expecting" in wrong[0]
    assert [text.partition(": ")[2] for text in wrong[1:3]] == ["other results"] * 2


def test_files_that_no_run_writes_are_found(tmp_path: Path):
    (tmp_path / "history.csv").write_text("a,b\n1,2")
    (tmp_path / "other").write_text("")
    (tmp_path / "lock").write_text("")
    assert [text.partition(":")[0] for text in incomplete_files(tmp_path)] == ["history.csv", "other"]


@pytest.mark.slow
@pytest.mark.skipif(mpi_is_missing(), reason="needs mpi4py and its mpiexec")
def test_a_rank_that_fails_ends_all_and_costs_nothing():
    outcomes, wrong = fail_ranks(len(KINDS), seed=1)
    assert outcomes.total() == len(KINDS)
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("length", ["for a moment", "for good"])
def test_a_full_disk_loses_nothing(length: str):
    tried, wrong = fill_the_disk(errno.ENOSPC, length, every=9)
    assert tried > 5
    assert wrong == []


@pytest.mark.slow
def test_damage_is_found():
    outcomes, wrong = damage_files(15, seed=1)
    assert sum(outcomes.values()) == 15
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_two_commands_in_one_folder(name: str):
    outcomes, wrong = start_two(name, 4, seed=1)
    assert sum(outcomes.values()) == 4
    assert wrong == []


@pytest.mark.slow
def test_the_command_prints_what_came_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from benchmarks.attacks.__main__ import main

    monkeypatch.setattr(sys, "argv", ["attacks", "damage", "folders", "--count", "3", "--out", str(tmp_path / "out")])
    with contextlib.suppress(SystemExit):
        assert main() == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out").read_text()
    assert printed.count("; nothing wrong") == 2
