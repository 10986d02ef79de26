"""Runs the command line as users do, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["DIGITS", "PICTURES", "POINTS", "RUN_FILES", "environment", "error", "nnbackend"]

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
    """Run the command with these arguments and changes of the environment."""
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
