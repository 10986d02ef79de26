"""Runs the command line, in this process or, as users do, in a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

from nnbackend.cli import main

__all__ = ["DIGITS", "PICTURES", "POINTS", "RUN_FILES", "environment", "error", "in_a_process", "nnbackend"]

#: Real images, but importing scikit-learn takes seconds; use points in a plane if any data will do.
DIGITS = ("--dataset", "digits", "--backend", "numpy", "--batch-size", "32")
POINTS = ("--dataset", "circle", "--backend", "numpy", "--batch-size", "32")
RUN_FILES = {"model.safetensors", "checkpoint.safetensors", "history.csv", "history.json", "config.json"}
PICTURES = {"curves.png", "confusion.png"}


def environment(**changes: str) -> dict[str, str]:
    """This process's variables with these changes."""
    inherited = {name: value for name, value in os.environ.items() if name != "NNBACKEND_DATA_DIR"}
    return {**inherited, "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "80", **changes}


def nnbackend(*arguments: str | Path, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these arguments and changes of the environment, in this process: starting Python and its
    imports take longer than most commands."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(**variables), clear=True),
        contextlib.chdir(folder or Path.cwd()),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def in_a_process(
    *arguments: str | Path, folder: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, for what depends on how Python starts."""
    return subprocess.run(
        [sys.executable, "-m", "nnbackend", *map(str, arguments)],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def error(result: subprocess.CompletedProcess[str]) -> str:
    """The single line of an error."""
    assert result.returncode == 2, result.stderr
    assert re.fullmatch(r"nnbackend: error: [^\n]+\n", result.stderr), result.stderr
    return result.stderr
