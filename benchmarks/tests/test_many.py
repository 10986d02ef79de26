"""A short version of `python -m benchmarks.many`."""

from __future__ import annotations

import pytest

from benchmarks.many import CASES, main, report


@pytest.mark.slow
def test_it_measures_and_prints(capsys):
    assert main(["--quick"]) == 0
    printed = capsys.readouterr().out
    for case in CASES:
        assert case in printed
    assert "memory of 1,000 networks" in printed


def test_the_factor_is_over_the_fastest_peer():
    own = {
        "fit": {"step": 4e-5, "inside": 1e-5, "calling": 1e-5},
        "alone": {"step": 2e-5},
        "one thread": {"step": 2e-5},
        "fit_many": {"step": 1e-5, "inside": 2e-5, "calling": 1e-6},
        "JAX": {"step": 3e-5},
        "PyTorch": {"step": 5e-5},
        "set-up": {"network": 4e-4},
        "memory": {"bytes": 5e8},
    }
    table = report(dict.fromkeys(CASES, own), 32)
    assert table.splitlines()[2].split()[1:] == (
        ["30.0", "50.0", "40.0", "10.0", "10.0", "10.0", "3.00", "2.3", "1.00", "0.40", "ms", "20"]
    )
    assert "500 MB" in table
    without = report({case: {name: own[name] for name in own if name not in ("JAX", "PyTorch")} for case in CASES}, 32)
    assert without.splitlines()[2].split()[1:3] == ["-", "-"]
