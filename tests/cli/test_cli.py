"""The command line.

Real processes of ``python -m nnbackend`` run what depends on them: signals, imports, variables that libraries read when
they are loaded, and one training run as users start it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main, train
from nnbackend.cli.parser import make_parser
from nnbackend.cli.text import network_line
from nnbackend.datasets import write_idx
from tests.cli.commands import PICTURES, POINTS, RUN_FILES, environment, error, in_a_process, nnbackend

# ---- train ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_prints_the_settings_a_row_per_epoch_and_the_accuracy(trained: tuple[Path, str]) -> None:
    folder, output = trained
    lines = output.splitlines()
    assert lines[0] == "data       digits: 1,438 rows to train on, 359 rows to test on"
    assert "64-200-80-10, relu, 29,890 parameters, float32, seed 0" in output
    assert "adam, learning rate 0.002, cosine" in output
    # --batch-size is not the default recipe's.
    assert re.search(r"^recipe +default, changed by options$", output, re.MULTILINE)
    assert re.search(r"^backend +numpy on \S+", output, re.MULTILINE)
    header = next(index for index, line in enumerate(lines) if line.split()[:2] == ["epoch", "loss"])
    assert [line.split()[0] for line in lines[header + 1 : header + 5]] == ["1", "2", "3", "4"]
    assert str(folder) in lines[-2]
    accuracy = re.fullmatch(r"test accuracy (\d+\.\d\d) % \(359 rows\)", lines[-1])
    assert accuracy is not None
    assert float(accuracy[1]) > 90
    assert not [line for line in lines if line != line.rstrip()]


def test_the_names_of_the_default_recipe_and_of_a_preset_differ() -> None:
    def name(*options: str) -> str:
        parsed = make_parser().parse_args(["train", *options])
        return train.recipe_name(parsed, train._recipe(parsed))

    assert name() == "default"
    assert name("--preset", "784-200-80-10") == "preset 784-200-80-10"
    assert name("--preset", "784-200-80-10", "--epochs", "3") == "preset 784-200-80-10, changed by options"


@pytest.mark.slow
def test_the_run_folder_holds_everything(trained: tuple[Path, str]) -> None:
    folder, output = trained
    assert {file.name for file in folder.iterdir()} == RUN_FILES | PICTURES
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    history = json.loads((folder / "history.json").read_text())
    assert [float(row["loss"]) for row in rows] == [epoch["loss"] for epoch in history["epochs"]]
    assert len(rows) == 4
    assert f"test accuracy {100 * history['test']['accuracy']:.2f} %" in output
    configuration = json.loads((folder / "config.json").read_text())
    assert configuration["dataset"] == "digits"
    assert configuration["recipe"]["hidden"] == [200, 80]
    assert (configuration["seed"], configuration["dtype"], configuration["backend"]) == (0, "float32", "numpy")
    data = nn.datasets.load("digits")
    network = nn.Network.load(folder / "model.safetensors", backend="numpy")
    assert network.evaluate(data.x_test, data.y_test)["accuracy"] == history["test"]["accuracy"]


def test_options_win_over_the_preset(tmp_path: Path) -> None:
    options = ("--preset", "784-40-10", "--hidden", "24,12", "--epochs", "1", "--seed", "7", "--dtype", "float64")
    more = ("--schedule", "step", "--dropout", "0.1", "--no-plots", "--quiet", "--out", tmp_path / "run")
    assert nnbackend("train", *POINTS, *options, *more).returncode == 0
    configuration = json.loads((tmp_path / "run" / "config.json").read_text())
    recipe = configuration["recipe"]
    assert (recipe["activation"], recipe["optimizer"]) == ("sigmoid", "sgd")  # the preset's
    assert (recipe["hidden"], recipe["epochs"], recipe["schedule"], recipe["batch_size"]) == ([24, 12], 1, "step", 32)
    assert (configuration["seed"], configuration["dtype"]) == (7, "float64")
    kinds = [layer["kind"] for layer in configuration["layers"]]
    assert kinds == ["dense", "dropout", "dense", "dropout", "dense"]


def test_quiet_prints_only_the_accuracy(tmp_path: Path) -> None:
    result = in_a_process("train", *POINTS, "--epochs", "1", "--quiet", "--no-plots", folder=tmp_path)
    assert re.fullmatch(r"test accuracy \d+\.\d\d % \(10,000 rows\)\n", result.stdout)
    assert result.stderr == ""
    [run] = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"circle-\d{8}-\d{6}", run.name)
    assert {file.name for file in run.iterdir()} == RUN_FILES


@pytest.mark.slow
def test_a_second_run_needs_another_folder_or_force(tmp_path: Path) -> None:
    train = ("train", *POINTS, "--epochs", "1", "--no-plots", "--out", tmp_path / "run")
    assert nnbackend(*train).returncode == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "run" / "curves.png").write_bytes(b"of the first run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    refused = nnbackend(*train, "--seed", "1")
    assert "already holds a run" in error(refused)
    assert refused.stdout == ""
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    assert nnbackend(*train, "--seed", "1", "--force").returncode == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != before
    assert {file.name for file in (tmp_path / "run").iterdir()} == RUN_FILES | {"notes.txt"}


def test_without_matplotlib_the_run_is_saved_and_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('not here')")
    paths = os.pathsep.join(path for path in (str(tmp_path), os.environ.get("PYTHONPATH")) if path)
    result = in_a_process("train", *POINTS, "--epochs", "1", "--out", tmp_path / "run", PYTHONPATH=paths)
    assert result.returncode == 0
    assert 'no pictures: pictures need the package matplotlib: pip install -e ".[plot]"' in result.stdout
    assert {file.name for file in (tmp_path / "run").iterdir()} == RUN_FILES


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for other processes")
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_what_was_learned_survives(tmp_path: Path, stop: signal.Signals, code: int) -> None:
    command = ["train", *POINTS, "--epochs", "100000", "--schedule", "constant", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "nnbackend", *command, "--no-plots"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        while not re.match(r"\s+2 ", process.stdout.readline()):
            assert process.poll() is None
        process.send_signal(stop)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, errors
    data = nn.datasets.load("circle")
    network = nn.Network.load(tmp_path / "run" / "model.safetensors", backend="numpy")
    accuracy = network.evaluate(data.x_test, data.y_test)["accuracy"]
    assert accuracy > 0.5
    if stop == signal.SIGINT:
        assert re.fullmatch(
            r"nnbackend: interrupted; the model so far is in \S+; to continue: nnbackend train --resume \S+\n",
            errors,
        )
        assert f"test accuracy {100 * accuracy:.2f} %" in output.splitlines()[-1]
        assert json.loads((tmp_path / "run" / "history.json").read_text())["interrupted"] is True


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_terminated_run_is_resumed_to_the_same_model(tmp_path: Path) -> None:
    options = ("train", *POINTS, "--epochs", "30", "--patience", "20", "--hidden", "30", "--no-plots")
    for folder in ("whole", "cut"):
        command = [sys.executable, "-m", "nnbackend", *options, "--out", folder]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        while folder == "cut" and not re.match(r"\s+2 ", process.stdout.readline()):
            assert process.poll() is None
        if folder == "cut":
            process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == (143 if folder == "cut" else 0), errors
    assert errors == "nnbackend: terminated; to continue: nnbackend train --resume cut\n"
    assert "test accuracy" not in output
    assert len(list((tmp_path / "cut" / "checkpoints").iterdir())) == 1

    resumed = nnbackend("train", "--resume", "cut", "--no-plots", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"resume +after \d+ steps", resumed.stdout)
    models = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "cut")]
    assert models[0] == models[1]
    texts = [(tmp_path / folder / "history.csv").read_text() for folder in ("whole", "cut")]
    tables = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert [row["val_loss"] for row in tables[0]] == [row["val_loss"] for row in tables[1]]
    assert {file.name for file in (tmp_path / "cut").iterdir()} == RUN_FILES


def test_resume_restores_the_options_and_reports_a_finished_run(
    tmp_path: Path, trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", str(trained[0])]) == 0
    assert re.fullmatch(
        r"\S+ is finished: 4 epochs, test accuracy [\d.]+ %; there is nothing to resume\n", capsys.readouterr().out
    )
    for wrong, message in (
        (["--resume", str(trained[0]), "--seed", "9"], "--seed cannot be combined with --resume"),
        (["--resume", str(trained[0]), "--epochs", "3"], "--resume can only add more, received 3"),
        (["--resume", str(tmp_path)], "holds no run of nnbackend train"),
        (["--checkpoint-minutes", "0"], "checkpoint minutes must be above 0"),
    ):
        assert main(["train", *wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_diverged_run_says_where_and_saves_no_broken_model(tmp_path: Path) -> None:
    options = ("--optimizer", "sgd", "--learning-rate", "1e9", "--out", tmp_path / "run")
    result = nnbackend("train", *POINTS, *options, "--quiet")
    assert re.search(r"NaN or infinite in epoch 1, step \d+: lower --learning-rate", result.stderr)
    assert result.returncode == 2
    assert not (tmp_path / "run").exists()


def test_early_stopping_validates_on_rows_held_out_of_the_training_set(tmp_path: Path) -> None:
    options = ("--epochs", "200", "--patience", "1", "--learning-rate", "0.05", "--schedule", "constant")
    result = nnbackend("train", *POINTS, *options, "--no-plots", "--out", tmp_path / "run")
    assert "900 rows to train on" in result.stdout
    assert "100 rows held out of the training set" in result.stdout
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["stopped_by"] == "EarlyStopping"
    assert len(history["epochs"]) < 200


@pytest.mark.slow
def test_auto_falls_back_to_mnist_5k_with_a_visible_notice(tmp_path: Path) -> None:
    options = ("train", "--backend", "numpy", "--epochs", "2", "--no-plots", "--no-download")
    result = nnbackend(*options, folder=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "mnist-5k: 4,000 images to train on, 1,000 images to test on" in result.stdout
    assert re.search(r"^NOTE +Training on 5,000 digits", result.stdout, re.MULTILINE)
    assert "NNBACKEND_DATA_DIR" in result.stdout
    accuracy = re.fullmatch(r"test accuracy (\d+\.\d\d) % \(1,000 images\)", result.stdout.splitlines()[-1])
    assert accuracy is not None
    assert float(accuracy[1]) > 85
    quiet = nnbackend(*options, "--quiet", folder=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert quiet.stderr.startswith("nnbackend: note: Training on 5,000 digits")
    assert quiet.stdout.count("\n") == 1


def test_data_dir_says_where_mnist_is(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for part, rows in (("train", 300), ("t10k", 100)):
        labels = generator.integers(0, 10, rows, dtype=np.uint8)
        images = np.broadcast_to(25 * labels[:, None, None], (rows, 28, 28)).astype(np.uint8)
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", labels)
    options = ("--data-dir", tmp_path, "--backend", "numpy", "--epochs", "1", "--no-plots", "--no-download")
    result = nnbackend("train", *options, folder=tmp_path)
    assert "mnist: 300 images to train on, 100 images to test on" in result.stdout
    assert str(tmp_path) in result.stdout
    assert "NOTE" not in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "mnits"], "unknown data set 'mnits': did you mean 'mnist'"),
        (["--preset", "784-40"], "unknown preset '784-40': did you mean '784-40-10'"),
        (["--backend", "numpi"], "unknown backend 'numpi': did you mean 'numpy'"),
        (["--activation", "rleu"], "unknown activation 'rleu': did you mean 'relu'"),
        (["--optimizer", "adm"], "unknown optimizer 'adm': did you mean 'adam'"),
        (["--schedule", "cosin"], "unknown schedule 'cosin': did you mean 'cosine'"),
        (["--loss", "softmax"], "unknown loss 'softmax'"),
        (["--dtype", "float16"], "unknown dtype 'float16'"),
        (["--hidden", "200,x"], "argument --hidden: must be sizes"),
        (["--hidden", "0"], "hidden layer's size must be a whole number of at least 1"),
        (["--epochs", "ten"], "argument --epochs: must be a whole number, received 'ten'"),
        (["--epochs", "0"], "epochs must be a whole number of at least 1"),
        (["--batch-size", "0"], "batch size must be a whole number of at least 1"),
        (["--learning-rate", "nan"], "learning rate must be a finite number"),
        (["--learning-rate", "fast"], "argument --learning-rate: must be a number, received 'fast'"),
        (["--dropout", "1"], "dropout must be in [0, 1)"),
        (["--momentum", "0.9"], "belong to the optimizer 'sgd'"),
        (["--optimizer", "sgd", "--nesterov"], "nesterov needs a momentum"),
        (["--warmup", "99"], "warmup must be shorter"),
        (["--decay", "0.5"], "'cosine' has no decay"),
        (["--beta1", "1"], "beta1 must be in [0, 1)"),
        (["--strides", "2"], "strides must be as many as filters, 0, received 1"),
        (["--patience", "0"], "patience must be"),
        (["--validation", "1"], "validation must be in [0, 1)"),
        (["--seed", "-1"], "seed must be"),
        (["--force"], "--force needs --out"),
        (["--dataset", "iris", "--data-dir", "."], "'iris' is not read from a folder"),
        (["--bogus"], "unknown option --bogus (see 'nnbackend train --help')"),
        (["--epoch", "3"], "unknown option --epoch: did you mean --epochs?"),
        (["--learning_rate=3"], "unknown option --learning_rate: did you mean --learning-rate?"),
        (["extra"], "there is no file 'extra' to train on"),
        (["--backend", "gpu"], "unknown backend 'gpu': did you mean 'cupy'?"),
        (["--backend", "cuda:0"], "unknown backend 'cuda:0': did you mean 'cupy'?"),
        (["--backend", "CPU"], "unknown backend 'CPU': did you mean 'numba' or 'numpy'?"),
        (["--backend", "jit"], "unknown backend 'jit': did you mean 'numba'?"),
        (["--dataset", "my.csv"], "received the file 'my.csv'; train on a table with nnbackend train"),
        (["--dataset", __file__], "received the file"),
    ],
)
def test_a_wrong_option_is_one_clear_line_before_any_data_are_loaded(
    options: Sequence[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("data were loaded")

    monkeypatch.setattr("nnbackend.cli.options.load", load)
    try:
        code: Any = main(["train", *options])
    except SystemExit as stop:
        code = stop.code
    output, errors = capsys.readouterr()
    assert code == 2
    assert output == ""
    assert errors.startswith("nnbackend: error: ")
    assert errors.count("\n") == 1
    assert message in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian': did you mean train?"),
        (["xyz"], "unknown command 'xyz'; known: train, search, evaluate"),
        (["warmup", "--dtype", "float23"], "--dtype: unknown 'float23': did you mean float32?"),
        (["predict", "model", "image", "--invret"], "unknown option --invret: did you mean --invert?"),
        (["--verion"], "unknown option --verion: did you mean --version?"),
    ],
)
def test_a_misspelt_word_has_a_suggestion(
    arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert errors.startswith("nnbackend: error: ")
    assert errors.count("\n") == 1
    assert message in errors


def test_errors_are_one_line_without_a_traceback(tmp_path: Path) -> None:
    assert "did you mean 'digits'" in error(nnbackend("train", "--dataset", "digit"))
    (tmp_path / "file").write_text("")
    in_file = nnbackend("train", *POINTS, "--quiet", "--out", tmp_path / "file" / "run")
    assert str(tmp_path / "file") in error(in_file)
    assert "at most the 1,000 rows" in error(nnbackend("train", *POINTS[:4], "--batch-size", "1001"))


# ---- info and bench ------------------------------------------------------------------------------------------


# ---- the command itself --------------------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert in_a_process("--version").stdout == f"nnbackend {nn.__version__}\n"
    text = in_a_process("train", "--help").stdout
    assert all(len(line) <= 80 for line in text.splitlines())
    for option in ("--preset", "--weight-decay", "--patience", "--out", "--warmup"):
        assert option in text


def test_without_a_command_there_is_help() -> None:
    result = nnbackend()
    assert result.returncode == 2
    assert "examples:" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_the_command_line_loads_no_heavy_package_before_it_is_needed() -> None:
    code = (
        "import sys\n"
        "from nnbackend.cli import main\n"
        "try:\n"
        "    main(['train', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'numba', 'cupy', 'scipy', 'sklearn', 'matplotlib', 'rich', 'PIL'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_evaluation_of_a_network_for_several_labels(tmp_path, capsys):
    from nnbackend.cli import main

    data = nn.datasets.load("circle")
    network = nn.Network([nn.Dense(2)], 2, backend="numpy")
    both = np.column_stack([data.y_train, data.y_train])
    network.fit(data.x_train, both, epochs=1, loss="sigmoid_cross_entropy", verbose=False)
    network.save(tmp_path / "model.safetensors")
    assert main(["evaluate", str(tmp_path / "model.safetensors"), "--dataset", "circle", "--backend", "numpy"]) == 0
    correct = network.evaluate(data.x_test, data.y_test)["binary_accuracy"]
    assert f"test accuracy of all outputs {100 * correct:.2f}" in capsys.readouterr().out


def test_convolutions_are_in_the_line_of_a_network():
    layers = [nn.Conv2D(20, 5, activation="relu"), nn.MaxPool2D(2), nn.Conv2D(4, (1, 3)), nn.Flatten(), nn.Dense(3)]
    line = network_line(nn.Network(layers, (28, 28, 1), backend="numpy"))
    assert line == "784-20c5-p2-4c1x3-3, relu, 2,207 parameters, float32"


def test_recipes_with_convolutions_train_on_square_images(tmp_path, capsys):
    options = ["--dataset", "digits", "--epochs", "1", "--backend", "numpy", "--no-plots", "--out"]
    assert main(["train", "--filters", "4", "--hidden", "10", *options, str(tmp_path / "run")]) == 0
    assert "network    64-4c5-p2-10-10, relu, 384 parameters" in capsys.readouterr().out
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert (recipe["filters"], recipe["hidden"]) == ([4], [10])
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert "is finished" in capsys.readouterr().out
    assert main(["train", "--preset", "lenet", *options, str(tmp_path / "other")]) == 2
    assert "images of 8 x 8 are too small for 2 convolutions" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_augmentation_is_part_of_the_recipe(tmp_path, capsys):
    options = [
        "--dataset",
        "digits",
        "--epochs",
        "1",
        "--backend",
        "numpy",
        "--no-plots",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["train", "--augment", "shift=0.5,elastic=3:1", "--hidden", "10", *options]) == 0
    assert "augment shift=0.5,elastic=3:1\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["augment"] == "shift=0.5,elastic=3:1"
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "2", "--no-plots"]) == 0
    capsys.readouterr()
    assert main(["train", "--augment", "sift=2", *options, "--force"]) == 2
    assert "unknown augmentation 'sift'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--augment", "flip"], "--augment needs"),
        (["--filters", "2", "--kernels", "1", "--augment", "flip"], "--filters and --augment need"),
    ],
)
def test_features_are_not_taken_for_pixels(options, named, tmp_path, capsys):
    out = ["--epochs", "1", "--backend", "numpy", "--no-plots", "--out", str(tmp_path / "run")]
    assert main(["train", "--dataset", "iris", *options, *out]) == 2
    assert f"{named} images, and the data set 'iris' has none; choose one of auto, mnist" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
