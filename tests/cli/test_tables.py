"""``nnbackend train table.csv --target price``, and ``predict`` and ``evaluate`` with the model of a table."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

import nnbackend as nn
from nnbackend.cli import table_train
from nnbackend.cli.table_files import read_table
from nnbackend.cli.table_target import read_target
from nnbackend.cli.train_options import add_options
from tests.cli.commands import error, nnbackend

SMALL = ("--members", "2", "--hidden", "8", "--epochs", "25", "--batch-size", "32", "--backend", "numpy")


def flats(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "area": generator.uniform(20, 150, rows).round(1),
            "district": generator.choice(["north", "harbour"], rows),
            "floor": generator.integers(0, 6, rows).astype(float),
            "lift": generator.random(rows) < 0.5,
        }
    )
    frame["rent"] = (300 + 9 * frame["area"] + 250 * (frame["district"] == "harbour")).round(2)
    frame["kind"] = np.where(frame["area"] > 80, "large", "small")
    frame.loc[::9, "floor"] = np.nan
    return frame


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same table in all kinds of files, and other rows of it."""
    folder, frame = tmp_path_factory.mktemp("tables"), flats()
    frame.to_csv(folder / "flats.csv", index=False)
    flats(50, seed=1).to_csv(folder / "others.csv", index=False)
    frame.to_parquet(folder / "flats.parquet")
    columns = {name: column.to_numpy() for name, column in frame.items()}
    np.savez(folder / "flats.npz", **{n: c.astype(str) if c.dtype == object else c for n, c in columns.items()})
    return folder


@pytest.fixture(scope="module")
def rent(files: Path) -> tuple[Path, str]:
    """The folder of a run that has learned rents, and its output."""
    table = ("train", files / "flats.csv", "--target", "rent", *SMALL, "--seed", "3")
    result = nnbackend(*table, "--out", files / "rent")
    assert result.returncode == 0, result.stderr
    return files / "rent", result.stdout


@pytest.fixture(scope="module")
def kind(files: Path) -> Path:
    """The folder of a run that has learned classes."""
    result = nnbackend("train", files / "flats.npz", "--target", "kind", *SMALL, "--quiet", "--out", files / "kind")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("test accuracy ")
    assert result.stdout.count("\n") == 1
    return files / "kind"


# ---- train -----------------------------------------------------------------------------------------------------------


def test_training_says_what_it_reads_and_prints_metrics(rent: tuple[Path, str], files: Path) -> None:
    folder, output = rent
    assert f"{files / 'flats.csv'} (CSV, separated by commas): 200 rows, 5 columns besides the target" in output
    assert "task       regression, because it holds numbers" in output
    assert "metrics of 40 rows that are held out" in output
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in output.splitlines() if len(line.split()) > 1}
    assert lines["district"] == "text, 2 different values: harbour, north"
    assert lines["floor"] == "numbers from 0 to 5, 23 missing"
    assert lines["lift"].startswith("true and false")
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "history.json"}
    configuration = json.loads((folder / "config.json").read_text())
    assert (configuration["target"], configuration["task"], configuration["seed"]) == ("rent", "regression", 3)
    history = json.loads((folder / "history.json").read_text())
    assert history["columns"]["floor"] == "numbers, some missing"
    assert f"test RMSE {history['test']['rmse']:.6g}, R2 {history['test']['r2']:.4f} (40 rows)" in output


def test_the_model_is_one_file_with_the_preparation_and_the_target(rent: tuple[Path, str], files: Path) -> None:
    model = nn.TabularRegressor.load(rent[0] / "model.safetensors", "numpy")
    assert model.target_name_ == "rent"
    assert model.n_members == len(model.ensemble_) == 2
    # The run's own estimator, on the rows that were not held out.
    table = read_table(str(files / "flats.csv"))
    frame = table.frame([name for name in table.columns if name != "rent"])
    others = nnbackend("predict", rent[0], files / "flats.csv", "--json", "--backend", "numpy")
    predicted = [entry["value"] for entry in json.loads(others.stdout)]
    np.testing.assert_array_equal(model.predict(frame), predicted)


def test_the_same_seed_gives_the_same_file(kind: Path, files: Path, tmp_path: Path) -> None:
    """Also from another kind of file."""
    for name in ("flats.npz", "flats.parquet", "flats.csv"):
        folder = tmp_path / name
        table = ("train", files / name, "--target", "kind", *SMALL, "--quiet")
        assert nnbackend(*table, "--out", folder).returncode == 0
        assert (folder / "model.safetensors").read_bytes() == (kind / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("values", "task", "found"),
    [
        (["a", "b"] * 10, "auto", ("classification", "U")),
        ([1, 2] * 10, "auto", ("classification", "i")),
        ([1.0, None] * 10, "auto", ("classification", "i")),
        ([True, False] * 10, "auto", ("classification", "b")),
        (list(range(20)), "auto", ("regression", "f")),
        ([1, 2] * 10, "regression", ("regression", "f")),
        (list(range(20)), "classification", ("classification", "i")),
        ([0.5, 1] * 10, "auto", ("regression", "f")),
        ([True, False] * 10, "regression", ("regression", "f")),
    ],
)
def test_the_target_decides_the_task(values: list[Any], task: str, found: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    pd.DataFrame({"x": 1.5, "y": values}).to_csv(path, index=False)
    target = read_target(read_table(str(path)), "y", task)
    assert (target.task, target.values.dtype.kind) == found
    assert target.reason
    assert len(target.rows) == len(target.values) == sum(value is not None for value in values)


def test_numbers_that_are_categories(files: Path, tmp_path: Path) -> None:
    options = ("train", files / "flats.csv", "--target", "rent", *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    assert nnbackend(*options, "--categorical", "floor").returncode == 0
    model = nn.TabularRegressor.load(tmp_path / "run/model.safetensors", "numpy")
    assert model.describe_columns()["floor"] == "6 categories"
    assert nnbackend("evaluate", tmp_path / "run", files / "others.csv", "--backend", "numpy").returncode == 0
    wrong = nnbackend(*options, "--force", "--categorical", "flor")
    assert "unknown column in --categorical 'flor': did you mean 'floor'" in error(wrong)
    assert nnbackend(*options, "--force", "--ignore", "floor,lift").returncode == 0
    model = nn.TabularRegressor.load(tmp_path / "run/model.safetensors", "numpy")
    assert list(model.feature_names_in_) == ["area", "district", "kind"]
    nothing = nnbackend(*options, "--force", "--ignore", "area,district,floor,lift,kind")
    assert "has no column besides the target" in error(nothing)


def test_rows_without_a_target_are_left_out_and_a_limit_of_time_holds(tmp_path: Path) -> None:
    frame = flats(60)
    frame.loc[:9, "rent"] = np.nan
    frame.to_csv(tmp_path / "flats.csv")
    limit = ("--max-seconds", "0.001", "--validation", "0")
    result = nnbackend("train", "flats.csv", "--target", "rent", *SMALL, *limit, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "10 rows without a value of rent left out" in result.stdout
    assert "1 column without a name left out" in result.stdout  # the index of the data frame
    assert "no metrics: no row was held out" in result.stderr
    [run] = (tmp_path / "runs").iterdir()
    assert run.name.startswith("flats-")
    assert nn.TabularRegressor.load(run / "model.safetensors", "numpy").n_epochs_ == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["flats.csv"], "--target is missing: name the column to predict; flats.csv has area, district"),
        (["flats.csv", "--target", "rant"], "unknown column of flats.csv in --target 'rant': did you mean 'rent'?"),
        (["flats.csv", "--target", "kind", "--task", "regression"], "'large' in row 1; correct it, or give --task c"),
        (["flats.parquet", "--target", "kind", "--task", "regression"], "holds text, such as"),
        (["flats.csv", "--target", "rent", "--task", "classification"], "holds fractions, such as"),
        (["flats.csv", "--target", "rent", "--task", "guess"], "unknown task 'guess'"),
        (["flats.csv", "--target", "rent", "--filters", "8"], "--filters is not for tables"),
        (["flats.csv", "--target", "rent", "--any-target"], "--any-target is not for tables"),
        (["flats.csv", "--target", "rent", "--members", "0"], "members must be"),
        (["flats.csv", "--target", "rent", "--validation", "1"], "validation must be"),
        (["flats.csv", "--target", "rent", "--backend", "gpu"], "unknown backend 'gpu'"),
        (["none.csv", "--target", "rent"], "there is no file 'none.csv' to train on"),
        (["--target", "rent"], "--target is for tables; name the file"),
        (["--resume", "rent"], "was trained on a table, and keeps no state"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    options: list[str], message: str, files: Path, rent: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: Any, **__: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(nn.TabularRegressor, "fit", fit)
    monkeypatch.setattr(nn.TabularClassifier, "fit", fit)
    assert message in error(nnbackend("train", *options, folder=files))
    assert not (files / "runs").exists()


def test_every_option_is_for_tables_or_refused() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    accepted = {
        "table", "validation", "hidden", "activation", "members", "learning_rate", "batch_size", "epochs", "seed",
        "dtype", "backend", "timeout", "out", "force", "no_plots", "quiet",
    }  # fmt: skip
    assert {*vars(parser.parse_args([]))} == {*table_train._OF_NETWORKS, *table_train._OF_TABLES, *accepted}


def test_a_run_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.0, 2.0] * 9, "y": ["a"] * 18}).to_csv(tmp_path / "one.csv", index=False)
    table = ("train", "one.csv", "--target", "y", *SMALL, "--quiet")
    assert "y has only one class" in error(nnbackend(*table, folder=tmp_path))
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(("module", "file", "extra"), [("pandas", "flats.csv", "pandas"),
                                                       ("pyarrow.parquet", "flats.parquet", "tables")])  # fmt: skip
def test_a_missing_package_is_named(module: str, file: str, extra: str, files: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert f'pip install -e ".[{extra}]"' in error(nnbackend("train", files / file, "--target", "rent", *SMALL))


# ---- predict and evaluate --------------------------------------------------------------------------------------------


def test_predictions_of_numbers_as_text_json_and_csv(rent: tuple[Path, str], files: Path, tmp_path: Path) -> None:
    predict = ("predict", rent[0], files / "others.csv", "--backend", "numpy")
    model = nn.TabularRegressor.load(rent[0] / "model.safetensors", "numpy")
    frame = flats(50, seed=1).drop(columns="rent")
    values, ends = model.predict(frame), model.predict_quantiles(frame, [0.05, 0.95])
    header, first, *_ = nnbackend(*predict).stdout.splitlines()
    assert header.split()[:2] == ["row", "rent"]
    assert first.split() == ["1", f"{values[0]:.6g}", f"{ends[0, 0]:.6g}", "to", f"{ends[0, 1]:.6g}"]
    entries = json.loads(nnbackend(*predict, "--json").stdout)
    assert [entry["value"] for entry in entries] == values.tolist()
    assert f"50 predictions in {tmp_path / 'out.csv'}" in nnbackend(*predict, "--out", tmp_path / "out.csv").stdout
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rent"]) for row in rows] == values.tolist()
    assert [float(row["rent high"]) for row in rows] == ends[:, 1].tolist()


def test_predictions_of_classes(kind: Path, files: Path, tmp_path: Path) -> None:
    frame = flats(50, seed=1)
    frame[["lift", "rent", "floor", "district", "area"]].assign(more=1).to_csv(tmp_path / "a.csv", index=False)
    predict = ("predict", kind, tmp_path / "a.csv", "--backend", "numpy")
    model = nn.TabularClassifier.load(kind / "model.safetensors", "numpy")
    probabilities = model.predict_proba(frame[list(model.feature_names_in_)])
    entries = json.loads(nnbackend(*predict, "--json").stdout)
    assert [list(entry["probabilities"].values()) for entry in entries] == probabilities.tolist()
    assert [entry["class"] for entry in entries] == model.classes_[probabilities.argmax(axis=1)].tolist()
    header, first, *_ = nnbackend(*predict).stdout.splitlines()
    assert header.split() == ["row", "kind", "probability"]
    assert first.split() == ["1", entries[0]["class"], f"{100 * entries[0]['probability']:.2f}", "%"]
    nnbackend(*predict, "--out", tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        assert next(csv.reader(file)) == ["row", "kind", "probability of large", "probability of small"]


def test_evaluate_prints_metrics_of_another_table(rent: tuple[Path, str], kind: Path, files: Path) -> None:
    model = nn.TabularClassifier.load(kind / "model.safetensors", "numpy")
    frame = flats(50, seed=1)
    right = model.score(frame.drop(columns="kind"), frame["kind"])
    output = nnbackend("evaluate", kind, files / "others.csv", "--backend", "numpy").stdout
    assert "\nF1 of small  " in output
    assert output.endswith(f"test accuracy {100 * right:.2f} % (50 rows)\n")
    assert "ROC AUC" in output
    assert "for comparison: always" in output
    output = nnbackend("evaluate", rent[0], files / "others.csv", "--backend", "numpy").stdout
    regressor = nn.TabularRegressor.load(rent[0] / "model.safetensors", "numpy")
    assert f"R2 {regressor.score(frame.drop(columns='rent'), frame['rent']):.4f} (50 rows)" in output
    assert "for comparison: standard deviation" in output


def test_weights_are_read_once(rent: tuple[Path, str], files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind of model is in the file's description."""
    read: list[str] = []

    class Counted:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.opened = safe_open(*arguments, **options)

        def __enter__(self) -> Any:
            self.file = self.opened.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self.opened.__exit__(*error)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def get_tensor(self, name: str) -> Any:
            read.append(name)
            return self.file.get_tensor(name)

    monkeypatch.setattr("safetensors.safe_open", Counted)
    for command in ("predict", "evaluate"):
        read.clear()
        assert nnbackend(command, rent[0], files / "others.csv", "--backend", "numpy").returncode == 0
        assert read
        assert len(read) == len(set(read))


def test_categories_that_are_new_are_noted(rent: tuple[Path, str], tmp_path: Path) -> None:
    flats(5).assign(district=["north", "south", "south", None, "7"]).to_csv(tmp_path / "a.csv", index=False)
    result = nnbackend("predict", rent[0], tmp_path / "a.csv", "--backend", "numpy")
    assert result.returncode == 0, result.stderr
    assert "3 rows have categories of 'district' that the model has not seen, such as 'south', '7'" in result.stderr
    # A column of the file that looks like numbers is text, because the categories are.
    flats(5).assign(district="7").to_csv(tmp_path / "b.csv", index=False)
    assert nnbackend("predict", rent[0], tmp_path / "b.csv", "--backend", "numpy").returncode == 0


def test_classes_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(60.0), "y": ["1", "2", "A"] * 20})
    frame.to_csv(tmp_path / "a.csv", index=False)
    run = ("--target", "y", *SMALL, "--quiet", "--out", tmp_path / "run")
    assert nnbackend("train", tmp_path / "a.csv", *run).returncode == 0
    frame[frame["y"] != "A"].to_csv(tmp_path / "b.csv", index=False)
    assert nnbackend("evaluate", tmp_path / "run", tmp_path / "b.csv", "--backend", "numpy").returncode == 0
    frame.assign(y="B").to_csv(tmp_path / "b.csv", index=False)
    unknown = nnbackend("evaluate", tmp_path / "run", tmp_path / "b.csv", "--backend", "numpy")
    assert "the model does not know the classes 'B' of 'y'; it knows '1', '2', 'A'" in error(unknown)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_large_whole_numbers_as_classes_and_categories(kind: str, tmp_path: Path) -> None:
    """2**53 and the next number are the same float64."""
    code = [2**53 + row % 2 for row in range(80)]
    frame = pd.DataFrame({"code": code, "y": [2**62 + each % 2 for each in code]})
    path = tmp_path / f"a.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    run = ("--target", "y", "--categorical", "code", *SMALL, "--quiet", "--out", tmp_path / "run")
    assert nnbackend("train", path, *run).stdout == "test accuracy 100.00 % (16 rows)\n"
    result = nnbackend("predict", tmp_path / "run", path, "--json", "--backend", "numpy")
    assert result.stderr == ""
    assert [entry["class"] for entry in json.loads(result.stdout)] == frame["y"].tolist()
    result = nnbackend("evaluate", tmp_path / "run", path, "--backend", "numpy")
    assert result.stdout.endswith("test accuracy 100.00 % (80 rows)\n")


def test_codes_with_zeros_are_categories_if_an_option_says_so(tmp_path: Path) -> None:
    """007 and 7 are two codes, and stay two when the model predicts another table."""
    rows = [(code, price) for code, price in (("007", 5.0), ("7", 80.0), ("x", 30.0)) for _ in range(30)]
    for name, kept in (("a.csv", rows), ("b.csv", [row for row in rows if row[0] != "x"])):
        (tmp_path / name).write_text("code,price\n" + "".join(f"{code},{price}\n" for code, price in kept))
    run = (
        "--target",
        "price",
        "--task",
        "regression",
        "--categorical",
        "code",
        *SMALL,
        "--quiet",
        "--out",
        tmp_path / "run",
    )
    assert nnbackend("train", tmp_path / "b.csv", *run).returncode == 0
    model = nn.TabularRegressor.load(tmp_path / "run/model.safetensors", "numpy")
    assert model.preparation_.config()["columns"][0]["values"] == ["007", "7"]
    result = nnbackend("predict", tmp_path / "run", tmp_path / "a.csv", "--json", "--backend", "numpy")
    assert "30 rows have categories of 'code' that the model has not seen, such as 'x'" in result.stderr
    found = [round(entry["value"], 3) for entry in json.loads(result.stdout)]
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("command", "changes", "message"),
    [
        ("predict", {"drop": ["area"]}, "a.csv lacks the column 'area', which the model needs"),
        ("predict", {"drop": ["area", "lift"]}, "lacks the columns 'area', 'lift', which the model needs; it has d"),
        ("predict", {"area": "large"}, "column 'area' must hold numbers, received 'large' in row 1"),
        ("evaluate", {"drop": ["rent"]}, "a.csv has no column 'rent', which the model predicts"),
        ("evaluate", {"rent": np.nan}, "all values of the target 'rent' are missing"),
    ],
)
def test_tables_that_do_not_fit_the_model(
    command: str, changes: dict[str, Any], message: str, rent: tuple[Path, str], tmp_path: Path
) -> None:
    frame = flats(5).drop(columns=changes.pop("drop", [])).assign(**changes)
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert message in error(nnbackend(command, rent[0], "a.csv", "--backend", "numpy", folder=tmp_path))


def test_a_model_of_an_array_takes_the_columns_in_their_order(tmp_path: Path) -> None:
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20.0)
    model = nn.TabularRegressor(1, epochs=2, hidden_layer_sizes=(4,), random_state=0, backend="numpy").fit(x, y)
    model.save(tmp_path / "model.safetensors")
    pd.DataFrame(x, columns=["a", "b"]).to_csv(tmp_path / "a.csv", index=False)
    result = nnbackend("predict", tmp_path / "model.safetensors", tmp_path / "a.csv", "--json", "--backend", "numpy")
    assert [entry["value"] for entry in json.loads(result.stdout)] == model.predict(x).tolist()
    pd.DataFrame(x[:, :1]).to_csv(tmp_path / "a.csv", index=False, header=["a"])
    refused = nnbackend("predict", tmp_path / "model.safetensors", tmp_path / "a.csv", "--backend", "numpy")
    assert "has 1 columns, but the model was fitted to 2" in error(refused)


def test_models_and_files_of_the_other_kind_are_refused(rent: tuple[Path, str], files: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pictures need pillow")
    image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30).astype(np.uint8)).save(tmp_path / "a.png")
    generator = np.random.default_rng(0)

    def saved(name: str, x: Any, y: Any, loss: str, outputs: int) -> Path:
        network = nn.Network([nn.Dense(outputs)], x.shape[1], backend="numpy", input_scale=1)
        network.fit(x, y, loss=loss, epochs=1, verbose=False)
        network.save(tmp_path / name)
        return tmp_path / name

    labels = np.arange(20) % 3
    four = saved("four", generator.uniform(0, 1, (20, 4)), labels, "cross_entropy", 3)
    scaled = saved("scaled", generator.normal(size=(20, 64)), labels, "cross_entropy", 3)
    numbers = saved("numbers", generator.uniform(0, 1, (20, 64)), generator.normal(size=20), "mse", 1)
    for command, message in (
        (("predict", rent[0], tmp_path / "a.png"), "is no table"),
        (("predict", rent[0], files / "flats.csv", files / "flats.csv"), "predicts one table at a time"),
        (("predict", rent[0], files / "flats.csv", "--invert"), "--invert is for pictures"),
        (("predict", four, tmp_path / "a.png", "--out", "a.csv"), "--out is for models for tables"),
        (("predict", numbers, tmp_path / "a.png"), "predicts numbers, and not the classes of images"),
        (("evaluate", rent[0]), "is a model for tables; name the table"),
        (("evaluate", rent[0], files / "flats.csv", "--loss", "mse"), "--loss is not for models for tables"),
        (("evaluate", four, files / "flats.csv"), "is a network for the rows of a data set"),
    ):
        assert message in error(nnbackend(*command, "--backend", "numpy"))
    refused = nnbackend("predict", four, tmp_path / "a.png", "--backend", "numpy")
    assert (refused.returncode, "must have 4 pixels" in refused.stderr) == (2, True)
    refused = nnbackend("predict", scaled, tmp_path / "a.png", "--backend", "numpy")
    assert (refused.returncode, "which are no pixels" in refused.stderr) == (2, True)


def test_ctrl_c_saves_nothing(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(networks: Any, *_: Any, **__: Any) -> list[nn.History]:
        histories = [nn.History() for _ in networks]
        histories[-1].interrupted = True
        return histories

    monkeypatch.setattr("nnbackend.interop.tabular.recipe.fit_many", interrupted)
    table = ("train", files / "flats.csv", "--target", "rent", *SMALL, "--quiet")
    assert nnbackend(*table, "--out", tmp_path / "run").returncode == 130
    assert not (tmp_path / "run").exists()
