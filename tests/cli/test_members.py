"""``nnbackend train --members``: networks from several seeds, trained at once and saved as one model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.ensembles.progress import ManyProgress
from tests.cli.commands import DIGITS, error, nnbackend

RUN = ("train", *DIGITS, "--hidden", "12", "--epochs", "3", "--dropout", "0.1", "--quiet", "--no-plots")
MEMBERS = ("--members", "3", "--seed", "5")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("members") / "run"
    assert main([*RUN, *MEMBERS, "--out", str(folder)]) == 0
    return folder


def test_each_network_is_that_of_a_run_with_its_seed(run: Path, tmp_path: Path) -> None:
    ensemble = nn.Ensemble.load(run / "model.safetensors", "numpy")
    assert len(ensemble) == 3
    for place, network in enumerate(ensemble):
        alone = tmp_path / str(place)
        assert main([*RUN, "--seed", str(5 + place), "--out", str(alone)]) == 0
        weights = nn.Network.load(alone / "model.safetensors", "numpy").get_weights()
        for name, array in network.get_weights().items():
            assert np.array_equal(array, weights[name])
    with (run / "members.csv").open() as file:
        assert [(row["seed"], row["epochs"]) for row in csv.DictReader(file)] == [("5", "3"), ("6", "3"), ("7", "3")]


def test_evaluate_and_predict_use_the_mean_of_all(run: Path, tmp_path: Path, images: tuple[Path, object]) -> None:
    ensemble, data = nn.Ensemble.load(run / "model.safetensors", "numpy"), nn.datasets.load("digits")
    expected = ensemble.evaluate(data.x_test, data.y_test)
    printed = nnbackend("evaluate", run, "--backend", "numpy").stdout
    assert f"test loss {expected['loss']:.4f}" in printed
    assert f"test accuracy {100 * expected['accuracy']:.2f} %" in printed
    shown = nnbackend("predict", run, images[0] / "five.idx.gz", "--json", "--backend", "numpy")
    outputs = np.array([entry["outputs"] for entry in json.loads(shown.stdout)])
    pixels = np.round(255 * data.x_test[:5]).astype(np.uint8)
    np.testing.assert_allclose(outputs, ensemble.predict(pixels / np.float32(255)), rtol=1e-5, atol=1e-6)
    assert nnbackend("export", run, tmp_path / "all.onnx").returncode == 0


def test_a_run_that_was_killed_continues_with_the_same_bits(run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    ended = ManyProgress.ended

    def kill(self: ManyProgress, place: int) -> None:
        ended(self, place)
        if place == 1:
            raise SystemExit(9)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(ManyProgress, "ended", kill)
        with pytest.raises(SystemExit):
            main([*RUN, *MEMBERS, "--out", str(folder)])
    assert "to continue: nnbackend train --resume" in capsys.readouterr().err
    assert not (folder / "model.safetensors").exists()
    assert main(["train", "--resume", str(folder), "--quiet", "--no-plots"]) == 0
    assert {path.name for path in folder.iterdir()} == {path.name for path in run.iterdir()}
    assert (folder / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert main(["train", "--resume", str(folder)]) == 0
    assert "is finished: 3 epochs" in capsys.readouterr().out


def test_a_run_whose_networks_all_stopped_early_is_finished(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    early = ("--epochs", "30", "--patience", "1", "--learning-rate", "0.05")
    assert main([*RUN, *early, "--members", "2", "--out", str(folder)]) == 0
    assert max(len(each["epochs"]) for each in json.loads((folder / "history.json").read_text())["members"]) < 30
    capsys.readouterr()
    assert main(["train", "--resume", str(folder)]) == 0
    assert "is finished" in capsys.readouterr().out


def test_networks_that_diverge_are_left_out(tmp_path: Path, monkeypatch, capsys) -> None:
    fit_many = nn.fit_many

    def diverges(networks, *arguments, **options):
        weights = networks[1].get_weights()
        networks[1].set_weights({name: array + np.float32(1e38) for name, array in weights.items()})
        return fit_many(networks, *arguments, **options)

    monkeypatch.setattr("nnbackend.cli.many.fit_many", diverges)
    assert main([*RUN, *MEMBERS, "--out", str(tmp_path / "run")]) == 0
    assert "the network of seed 6 is left out: diverged in epoch 1, step 1" in capsys.readouterr().err
    assert len(nn.Ensemble.load(tmp_path / "run/model.safetensors", "numpy")) == 2
    with (tmp_path / "run/members.csv").open() as file:
        assert [bool(row["test_loss"]) for row in csv.DictReader(file)] == [True, False, True]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((*RUN, "--members", "0"), "members must be"),
        (("export", "{run}", "digits.h"), "is an ensemble of 3 networks, and a C header has one"),
        (("demo", "--model", "{run}"), "is an ensemble of 3 networks, and the page shows the layers of one"),
        (("evaluate", "{run}", "--loss", "huber"), "--loss is for one network"),
        (("train", "--resume", "{run}", "--epochs", "9"), "the networks of --members cannot be trained on"),
    ],
)
def test_what_ensembles_cannot_do_is_refused(run: Path, command: tuple[str, ...], message: str) -> None:
    assert message in error(nnbackend(*(word.replace("{run}", str(run)) for word in command)))
