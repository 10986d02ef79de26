"""The fixtures that tests of the benchmarks share with the package's own."""

from __future__ import annotations

import pytest

from tests.conftest import lock_folder, mnist

__all__ = ["lock_folder", "mnist"]


@pytest.fixture(autouse=True)
def _made_up_images(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tests that ask for MNIST read it: dozens of processes would unpack its files."""
    if "mnist" not in request.fixturenames:
        monkeypatch.delenv("NNBACKEND_DATA_DIR", raising=False)
