"""Runs notebooks like Jupyter, each in its own kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def run(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run all cells in a new folder ``cells`` of `folder`, and raise the error of a cell.

    Returns the notebook with its outputs.
    """
    pytest.importorskip("ipykernel", reason='needs a kernel: pip install -e ".[notebook]"')
    client = pytest.importorskip("nbclient", reason="needs nbclient").NotebookClient
    # Isolate the run from the user's configuration and files.
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(folder / "jupyter"))
    (folder / "cells").mkdir()
    resources = {"metadata": {"path": str(folder / "cells")}}
    return client(notebook, kernel_name="python3", timeout=240, resources=resources).execute()
