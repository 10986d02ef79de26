"""Every kind of input at every public entry point, on every backend, against the reviewed table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BACKENDS, make_backend
from tests.doors.entries import ESTIMATORS, NETWORKS, Door, outcome
from tests.doors.kinds import Kind, inputs, targets
from tests.doors.table import read

TABLE = read()
KINDS = {"x": inputs(), "y": targets()}


def test_the_table_names_every_kind_once_and_gives_reasons():
    generated = [(role, kind.name) for role, kinds in KINDS.items() for kind in kinds]
    assert len(set(generated)) == len(generated) > 150
    assert list(TABLE) == generated
    for name, row in TABLE.items():
        assert row.network in ("taken", "refused"), name
        assert row.reason or {row.network, row.classifier, row.regressor} == {"taken"}, name


def folders() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as root:
        for number in range(10_000):
            folder = Path(root, str(number))
            folder.mkdir()
            yield folder


def wrong(door: Door, kinds: list[Kind], column: str) -> list[str]:
    """Kinds for which the door does something other than the table says."""
    found = []
    for kind, folder in zip(kinds, folders(), strict=False):
        expected = getattr(TABLE[door.role, kind.name], column)
        seen = outcome(door, kind, folder)
        # An estimator that was fitted to the plain array cannot adapt to others.
        adapts = expected == "other" and "predict" in door.name
        if seen.word != expected and not adapts:
            found.append(f"{kind.name}: {seen.word}, but the table says {expected}: {seen.detail}")
    return found


@pytest.mark.parametrize("entry", NETWORKS)
@pytest.mark.parametrize("name", BACKENDS)
def test_networks(name, entry):
    door = NETWORKS[entry](make_backend(name))
    assert wrong(door, KINDS[door.role], "network") == []


@pytest.mark.parametrize("entry", ESTIMATORS)
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_estimators(name, entry):
    door = ESTIMATORS[entry](make_backend(name))
    column = "classifier" if entry.startswith("MLPClassifier") else "regressor"
    assert wrong(door, KINDS[door.role], column) == []
