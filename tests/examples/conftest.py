"""Put the folder of the examples on the path, as Python does when it runs them as programs."""

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
    # Remove the modules, so that other tests do not import them by mistake.
    for path in folder().glob("*.py"):
        sys.modules.pop(path.stem, None)
