"""A short version of `python -m benchmarks.search`."""

from __future__ import annotations

import pytest

from benchmarks.search import TARGETS, main, report


@pytest.mark.slow
def test_it_measures_and_prints(capsys):
    pytest.importorskip("sklearn")
    assert main(["--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "30 candidates x 5 folds" in lines[0]
    assert [line.split("  ")[0] for line in lines[2:]] == [*TARGETS, "GridSearchCV"]
    assert "2 epochs" in lines[0]
    scores = [float(line.split()[-2]) for line in lines[2:]]
    assert all(0.1 < score <= 1 for score in scores)


def test_times_and_scores_are_compared_with_those_of_scikit_learn():
    found = {
        "MLPSearchCV": {"seconds": 10.0, "score": 0.95, "error": 0.02},
        "MLPSearchCV, halving": {"seconds": 4.0, "score": 0.93, "error": 0.01},
        "GridSearchCV": {"seconds": 200.0, "score": 0.94, "error": 0.005},
    }
    lines = report(found).splitlines()
    assert lines[2].split()[1:] == ["10.00", "20.0", "15", "0.9500", "2.00"]
    assert lines[3].split()[2:] == ["4.00", "50.0", "40", "0.9300", "2.00"]
    assert lines[4].split()[1:] == ["200.00", "1.0", "-", "0.9400", "0.00"]
