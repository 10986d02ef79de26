"""The checksums of `benchmarks.golden` distinguish results, and comparisons report differences."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.golden import estimators as estimators
from benchmarks.golden import parts as parts
from benchmarks.golden import runs as runs
from benchmarks.golden.compare import INTENDED, differences
from benchmarks.golden.digest import CONFIGURATIONS, checksum, configuration, run

OTHERS = [1, 1.0, "1", [1], {"1": 1}, None, b"1", np.ones(1), np.ones((1, 1)), np.ones(1, np.float32), -0.0, 0.0]


def test_checksums_depend_on_every_bit_type_and_shape():
    assert len({checksum(value) for value in OTHERS}) == len(OTHERS)
    values = np.arange(3.0)
    before = checksum({"a": values, "b": 1})
    assert checksum({"b": 1, "a": values.copy()}) == before
    values[1] = np.nextafter(1, 2)
    assert checksum({"a": values, "b": 1}) != before


@pytest.mark.parametrize("name", ["numpy/optimizer-adam", "numpy/two-ranks", "numpy/resumed", "numpy/batch-stream"])
def test_a_configuration_has_reproducible_results(name):
    first = run(name)
    assert {"weights", "history"} <= first.keys()
    assert run(name) == first


def test_differences_and_failures_are_reported(monkeypatch):
    then = {"same": {"weights": "1"}, "other": {"weights": "1", "history": "2"}, "failed": {"error": "E"}, "gone": {}}
    now = {"same": {"weights": "1"}, "other": {"weights": "3", "history": "2"}, "failed": {"error": "E"}}
    assert dict(differences(then, now)) == {"other": "weights 1 -> 3", "failed": "then: E; now: E"}
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.golden.digest.CONFIGURATIONS", {})
        configuration("broken")(lambda outcome: outcome.add("weights", object()))
        assert run("broken")["error"].startswith("TypeError: no checksum of a object")


def test_intended_differences_name_existing_configurations():
    assert INTENDED.keys() <= CONFIGURATIONS.keys()
