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
    for name in [name for name, module in sys.modules.items() if str(folder()) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]
