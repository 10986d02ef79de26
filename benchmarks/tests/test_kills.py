"""A short version of the kill study `python -m benchmarks.kills`."""

from __future__ import annotations

import sys

import pytest

from benchmarks.kills import Findings, kill_and_resume, report


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(("network", "rows", "epochs"), [("dense", 1000, 25), ("convolutional", 300, 8)])
def test_a_run_killed_repeatedly_ends_with_the_same_bits(network: str, rows: int, epochs: int):
    findings = kill_and_resume("numpy", kills=3, seed=0, rows=rows, epochs=epochs, network=network)
    assert findings.kills == 3
    assert findings.runs >= 1
    assert findings.different == []
    assert "bit-identical" in report(findings)


def test_a_difference_is_reported():
    assert "DIFFERENT: weights" in report(Findings("numpy", different=["weights", "weights"]))
