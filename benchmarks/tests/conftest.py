"""The fixtures that tests of the benchmarks share with the package's own."""

from __future__ import annotations

from tests.conftest import _workers_compile_once, mnist

__all__ = ["_workers_compile_once", "mnist"]
