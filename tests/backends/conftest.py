"""How many threads share a step, for the tests of Numba's compiled executor."""

from __future__ import annotations

import pytest

from nnbackend.backends.numba import executor, program


@pytest.fixture(params=["rows", "columns"])
def always_shared(request, monkeypatch):
    """However little there is to do, all threads take part."""
    if request.param == "columns":
        monkeypatch.setattr(program, "_WORTH_COLUMNS", [(10**9, 0)])
        monkeypatch.setattr(program, "_MANY_COLUMNS", 1)
    monkeypatch.setattr(executor, "_SHARED_STEP", 0)
    monkeypatch.setattr(executor, "_SHARED_RUN", 0)
