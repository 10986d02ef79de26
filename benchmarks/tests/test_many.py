"""A short version of `python -m benchmarks.many`."""

from __future__ import annotations

import pytest

from benchmarks.many import CASES, LARGE, main, report
from benchmarks.many_threads import Parts, most_threads, simulate


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


@pytest.mark.slow
def test_it_simulates_and_prints(capsys):
    assert main(["--simulate", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "a simulation, not a measurement" in printed
    for case in CASES:
        assert case in printed


@pytest.mark.slow
def test_it_compares_large_networks(capsys):
    assert main(["--large", "--quick"]) == 0
    printed = capsys.readouterr().out
    for case in LARGE:
        assert case in printed


class TestSimulation:
    def test_compiled_steps_run_beside_each_other(self):
        parts = Parts(compiled=1.0, between=0.0, calling=0.0, begin=0.0)
        for threads, networks, seconds in ((1, 6, 30.0), (2, 6, 15.0), (4, 6, 8.0), (6, 6, 5.0), (64, 6, 5.0)):
            assert simulate(parts, threads, networks, 5) == pytest.approx(seconds)

    def test_python_runs_on_one_thread_at_a_time(self):
        for parts in (Parts(0.0, 1.0, 0.0, 0.0), Parts(0.0, 0.0, 1.0, 0.0)):
            for threads in (1, 2, 64):
                assert simulate(parts, threads, 6, 5) == pytest.approx(30.0)

    def test_a_network_waits_for_its_own_parts(self):
        parts = Parts(compiled=4.0, between=2.0, calling=1.0, begin=3.0)
        assert simulate(parts, 64, 1, 5) == pytest.approx(parts.alone(5)) == pytest.approx(38.0)

    def test_the_lock_limits_the_number_of_threads(self):
        """A thread holds it for a tenth of its time, so ten threads never wait for less than it."""
        parts = Parts(compiled=0.9, between=0.1, calling=0.0, begin=0.0)
        assert simulate(parts, 5, 80, 20) == pytest.approx(320, rel=0.06)
        assert simulate(parts, 64, 80, 20) == pytest.approx(160, rel=0.02)
        assert most_threads(parts, 20) == 8
        assert most_threads(Parts(1.0, 0.0, 0.0, 0.0), 20) == 1024
        assert most_threads(Parts(0.0, 1.0, 0.0, 0.0), 20) == 1
