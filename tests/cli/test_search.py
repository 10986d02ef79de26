"""``nnbackend search``: all combinations are trained at once, and the best on held-out rows is saved."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import nnbackend as nn
from tests.cli.commands import error, nnbackend

SMALL = ("--dataset", "digits", "--epochs", "2", "--no-plots", "--quiet")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_best_is_saved_and_is_what_train_makes(tmp_path: Path, backend: str) -> None:
    grid = ("--learning-rate", "0.0001", "0.003", "--hidden", "16", "20,12")
    found = nnbackend("search", *SMALL, *grid, "--backend", backend, "--out", tmp_path / "run")
    assert found.returncode == 0, found.stderr
    with (tmp_path / "run/search.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["learning_rate"], row["hidden"]) for row in rows} == {
        (rate, hidden) for rate in ("0.0001", "0.003") for hidden in ("16", "20,12")
    }
    scores = [float(row["val_accuracy"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    best = ("--learning-rate", rows[0]["learning_rate"], "--hidden", rows[0]["hidden"])
    alone = nnbackend("train", *SMALL, *best, "--validation", "0.1", "--backend", backend, "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    winner, again = (nn.Network.load(tmp_path / name / "model.safetensors", "numpy") for name in ("run", "alone"))
    for name, weight in winner.get_weights().items():
        assert np.array_equal(weight, again.get_weights()[name])
    assert found.stdout.splitlines()[-1] == alone.stdout.splitlines()[-1]  # the test accuracy


@pytest.mark.slow
def test_a_file_holds_grids_that_do_not_go_together(tmp_path: Path) -> None:
    grids = [{"optimizer": "sgd", "learning_rate": [0.1, 0.2]}, {"optimizer": "adam", "hidden": [[16], [20, 12]]}]
    (tmp_path / "grid.json").write_text(json.dumps(grids))
    options = ("--grid", tmp_path / "grid.json", "--backend", "numpy", "--out", tmp_path / "run")
    found = nnbackend("search", *SMALL, *options)
    assert found.returncode == 0, found.stderr
    with (tmp_path / "run/search.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hidden", "16"), "there is nothing to search over"),
        (("--dropout", "0", "1.5"), "--dropout 1.5 --epochs 2: dropout must be in"),
        (("--dropout", "0.1", "0.1"), "is in the grid twice"),
        (("--learning-rate", "0.1,0.2"), "separate several values by spaces"),
        (("--grid", "nowhere.json"), "nowhere.json"),
    ],
)
def test_bad_grids_are_refused_before_anything_trains(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    assert message in error(nnbackend("search", *SMALL, *options, "--backend", "numpy", "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "empty list"),
        ('{"lerning_rate": [1]}', "lerning_rate"),
        ('{"dropout": []}', "dropout has no values"),
        ('{"dropout": ["much"]}', "--grid: each value of dropout"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, contents: str, message: str) -> None:
    (tmp_path / "grid.json").write_text(contents)
    options = ("--grid", tmp_path / "grid.json", "--backend", "numpy", "--out", tmp_path / "run")
    assert message in error(nnbackend("search", *SMALL, *options))
    assert not (tmp_path / "run").exists()
