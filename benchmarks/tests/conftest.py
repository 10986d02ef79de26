"""The fixtures that tests of the benchmarks share with the package's own."""

from __future__ import annotations

from tests.conftest import lock_folder, mnist

__all__ = ["lock_folder", "mnist"]
