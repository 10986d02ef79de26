"""The examples are programs and no package: their folder is put on the path as Python does for a program."""

from __future__ import annotations

import importlib
import sys

import pytest

from nnbackend.cli.examples import folder


@pytest.fixture(scope="session")
def example():
    """``example("circle")`` is the module."""
    sys.path.insert(0, str(folder()))
    yield importlib.import_module
    sys.path.remove(str(folder()))
    # Their names are everyday words; no other test shall import them by mistake.
    for path in folder().glob("*.py"):
        sys.modules.pop(path.stem, None)
