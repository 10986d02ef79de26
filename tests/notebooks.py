"""Running notebooks, as Jupyter does, in a kernel of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def run(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run all cells in a new folder ``cells`` of `folder`; an error in one is raised here.

    Returns the notebook with what its cells show.
    """
    pytest.importorskip("ipykernel", reason='needs a kernel: pip install -e ".[notebook]"')
    client = pytest.importorskip("nbclient", reason="needs nbclient").NotebookClient
    # Whatever the user of this machine has set up or kept stays out, and as it is.
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(folder / "jupyter"))
    (folder / "cells").mkdir()
    resources = {"metadata": {"path": str(folder / "cells")}}
    return client(notebook, kernel_name="python3", timeout=240, resources=resources).execute()
