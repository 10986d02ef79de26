"""How many threads share a step, for the tests of Numba's compiled executor."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

#: Tests of packages that a machine with a GPU may lack, or that are written with them.
_NEED = {
    "array_api_strict": ["test_array_api.py", "test_torch.py"],
    "hypothesis": ["test_any_size.py", "cupy/test_operations.py"],
    "numba": ["test_allocations.py", "test_numba_*.py"],
}
collect_ignore_glob = [name for package, names in _NEED.items() if find_spec(package) is None for name in names]


@pytest.fixture(params=["rows", "columns"])
def always_shared(request, monkeypatch):
    """However little there is to do, all threads take part."""
    from nnbackend.backends.numba import executor, program

    if request.param == "columns":
        monkeypatch.setattr(program, "_WORTH_COLUMNS", [(10**9, 0)])
        monkeypatch.setattr(program, "_MANY_COLUMNS", 1)
    monkeypatch.setattr(executor, "_SHARED_STEP", 0)
    monkeypatch.setattr(executor, "_SHARED_RUN", 0)
