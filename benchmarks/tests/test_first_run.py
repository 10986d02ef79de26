"""The benchmark of the first run: its processes, and the table that it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import first_run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The Pythons that were started, with their environments; none really is."""
    seen: list[tuple[list[str], dict[str, str]]] = []

    def python(arguments: list[str], cache: Path, **environment: str) -> str:
        seen.append((arguments, environment))
        if "measure" in arguments:
            then = arguments[arguments.index("measure") + 1 :]
            return json.dumps({"first epoch": 4.0, **dict.fromkeys(then, 0.5)})
        return f"{0.02 * len(seen)}\n"

    monkeypatch.setattr(first_run, "_python", python)
    return seen


def test_all_rows_are_measured_and_printed(started, capsys):
    assert first_run.main(["--target", "x86-64-v4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "$ python -m benchmarks.first_run --target x86-64-v4"
    assert len(lines) == 3 + len(first_run.TARGETS)
    assert "first epoch, empty cache       4.000      4      1" in lines
    assert [environment for _, environment in started if environment] == [{"NNBACKEND_TARGET": "x86-64-v4"}]


def test_a_file_keeps_what_was_measured_in_parts(started, capsys, tmp_path):
    store = tmp_path / "seconds.json"
    for words in (["fit"], ["shipped", "--rounds", "2"], ["--rounds", "0"]):
        first_run.main([*words, "--store", str(store)])
    printed = capsys.readouterr().out.splitlines()
    assert "then another loss              0.500      1      1" in printed
    assert printed[-4].split()[-1] == "1"
    assert len(json.loads(store.read_text())["first epoch, shipped code"]) == 2
    assert "nnbackend train, empty cache" not in json.loads(store.read_text())


def test_new_processes_keep_bytecode(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    program = "import os, sys; print(sys.dont_write_bytecode, os.environ['NUMBA_CACHE_DIR'])"
    assert first_run._python(["-c", program], tmp_path) == f"False {tmp_path}\n"


def test_an_unknown_group_is_an_error(capsys):
    with pytest.raises(SystemExit):
        first_run.main(["nothing"])
    assert "unknown nothing; known are fit, shipped, train, import" in capsys.readouterr().err


def test_the_stored_result_is_what_the_program_prints():
    lines = (Path(first_run.__file__).parent / "results" / "first_run.txt").read_text().splitlines()
    assert lines[0].startswith("$ python -m benchmarks.first_run")
    assert [line[:28].rstrip() for line in lines[3:]] == list(first_run.TARGETS)
