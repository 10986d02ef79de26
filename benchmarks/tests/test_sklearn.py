"""`python -m benchmarks.sklearn`: training, rejected contenders, and output."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from sklearn.datasets import load_iris

import nnbackend as nn
from benchmarks.sklearn import contest, table
from benchmarks.sklearn.__main__ import FOLDER, main
from benchmarks.sklearn.tasks import TASKS, data_of


class _Answer:
    def __init__(self, value):
        self.result = lambda: value


class _HerePool:
    """Runs in this process, which needs no start."""

    def submit(self, function, *arguments):
        return _Answer(function(*arguments))


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(contest, "_process", lambda threads: contextlib.nullcontext(_HerePool()))


def test_a_run_keeps_what_it_prints(in_this_process, tmp_path, capsys):
    arguments = ["--quick", "--rounds", "2", "--threads", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--contenders", "numpy", "--data", "iris", "diabetes"]) == 0
    printed = capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert path.name == "float64-threads-1.json"
    result = json.loads(path.read_text())
    assert table.text(result) in printed
    assert "these results only show that it runs" in printed
    for task in result["tasks"]:
        theirs, ours = task["contenders"]["scikit-learn"], task["contenders"]["numpy"]
        assert ours["disagreement"] < 1e-12
        assert ours["score"] == pytest.approx(theirs["score"])
        assert ours["epochs"] == theirs["epochs"] == 3
        assert {len(found[what]) for found in (ours, theirs) for what in contest.TIMES} == {2}
    assert main(["table", "--out", str(tmp_path)]) == 0
    assert "| iris " in capsys.readouterr().out


def test_contenders_with_other_losses_are_not_timed(in_this_process, monkeypatch):
    real = contest._estimator

    def hasty(task, contender, quick):
        model = real(task, contender, quick)
        return model if contender == contest.REFERENCE else model.set_params(alpha=0.1)

    monkeypatch.setattr(contest, "_estimator", hasty)
    (measured,) = contest.contest(["numpy"], TASKS[:1], 1, "float64", rounds=1, quick=True)
    refused = measured["contenders"]["numpy"]
    assert refused["fit_seconds"] == []
    assert "differ from scikit-learn's" in refused["error"]
    assert measured["contenders"]["scikit-learn"]["fit_seconds"]


def test_every_data_set_trains_both(monkeypatch):
    assert len(TASKS) == 10
    for task in TASKS:
        # Only the kind of targets and the parameters matter here, not the rows.
        data = data_of(task.name, "float32")
        assert data.x_train.dtype == "float32"
        model = contest._estimator(task, "numpy", quick=True).set_params(max_iter=1, early_stopping=False)
        kind = nn.MLPRegressor if task.regression else nn.MLPClassifier
        assert type(model) is kind
        model.partial_fit(
            data.x_train[:40], data.y_train[:40], **({} if task.regression else {"classes": _classes(data.y_train)})
        )
        assert len(model.predict(data.x_test[:5])) == 5
    assert len(data_of("iris", "float64").x_test) == pytest.approx(len(load_iris().target) / 4, abs=1)


def _classes(y):
    return range(y.shape[1]) if y.ndim == 2 else sorted(set(y))


def test_the_page_shows_the_stored_figures():
    page = (Path(__file__).parents[2] / "docs" / "howto" / "sklearn.md").read_text()
    stored = sorted(FOLDER.glob("*.json"))
    assert len(stored) == 2
    for path in stored:
        assert table.text(json.loads(path.read_text())) in page, "run: python -m benchmarks.sklearn table"
