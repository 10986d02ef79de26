"""Backends on the CPU for these tests, which are skipped if kernels cannot be built."""

from __future__ import annotations

from functools import cache

import pytest

from nnbackend.backends.cupy import CupyBackend
from tests.backends.cupy.emulator import emulated_cupy_backend, why_not


@cache
def _backend(reverse_threads: bool, reverse_blocks: bool, interleave: int) -> CupyBackend:
    return emulated_cupy_backend(reverse_threads=reverse_threads, reverse_blocks=reverse_blocks, interleave=interleave)


@pytest.fixture(scope="session")
def needs_compiler() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def emulated(needs_compiler) -> CupyBackend:
    """The CuPy backend on the CPU."""
    return _backend(False, False, 0)


@pytest.fixture(
    scope="session", params=[(True, False, 0), (False, True, 1), (True, True, 2)], ids=["threads", "blocks", "both"]
)
def reversed_order(request, needs_compiler) -> CupyBackend:
    """The same, with threads, blocks or both in reverse order, and warps in lockstep, as far ahead as possible, or in a
    random order."""
    return _backend(*request.param)
