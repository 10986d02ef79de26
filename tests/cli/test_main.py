"""The command's entry point: Ctrl-C during its imports, and warnings in one line."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from nnbackend import cli
from nnbackend.__main__ import main
from tests.cli.commands import POINTS, error, nnbackend


@pytest.fixture(autouse=True)
def warnings_are_formatted_as_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)


def test_ctrl_c_while_the_command_is_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupt(name, *arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("builtins.__import__", interrupt)
        code = main()
    assert code == 130
    assert capsys.readouterr().err == "\nnnbackend: interrupted\n"


def test_warnings_are_one_line_without_code(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "main", lambda: 0)
    assert main() == 0
    text = warnings.formatwarning("no space", RuntimeWarning, __file__, 3, "code()")
    assert text == "nnbackend: warning: no space\n"


@pytest.mark.parametrize("command", [["examples"], ["train", *POINTS, "--epochs", "1", "--no-plots"]])
def test_a_process_without_standard_output(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its streams were closed before it began."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert cli.main(command) == 0


def test_sizes_in_two_words_are_explained():
    message = error(nnbackend("train", "--hidden", "200", "80"))
    assert "there is no file '80' to train on; sizes are separated by commas, such as 200,80" in message
