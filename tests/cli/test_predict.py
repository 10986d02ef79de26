"""``nnbackend evaluate`` and ``nnbackend predict``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.datasets import write_idx
from tests.cli.commands import environment, error, nnbackend


@pytest.mark.slow
def test_evaluate_repeats_the_accuracy_of_the_run(trained: tuple[Path, str]) -> None:
    folder, output = trained
    result = nnbackend("evaluate", folder, "--backend", "numpy")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == output.splitlines()[-1]
    history = json.loads((folder / "history.json").read_text())
    assert f"test loss {history['test']['loss']:.4f}" in result.stdout


def test_evaluate_refuses_data_of_another_size(trained: tuple[Path, str]) -> None:
    message = error(nnbackend("evaluate", trained[0], "--dataset", "xor", "--backend", "numpy"))
    assert "takes 64 numbers per row, but the data set 'xor' has 2" in message


def test_a_missing_or_broken_model_is_named(tmp_path: Path, trained: tuple[Path, str]) -> None:
    assert "there is no such file" in error(nnbackend("evaluate", tmp_path / "none", "--backend", "numpy"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((trained[0] / "model.safetensors").read_bytes()[:5000])
    assert str(broken) in error(nnbackend("predict", broken, "x.png", "--backend", "numpy"))


def test_predict_prints_a_line_per_image(trained: tuple[Path, str], images: tuple[Path, np.ndarray[Any, Any]]) -> None:
    folder, pixels = images
    files = [folder / f"{index}.png" for index in range(5)]
    result = nnbackend("predict", trained[0], *files, "--backend", "numpy")
    assert result.returncode == 0, result.stderr
    scores = nn.Network.load(trained[0] / "model.safetensors", "numpy").predict(pixels.reshape(5, 64) / np.float32(255))
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["image", "class", "probability"]
    expected = [
        (str(file), str(row.argmax()), f"{100 * row.max():.2f} %") for file, row in zip(files, scores, strict=True)
    ]
    assert [tuple(re.split(r"\s{2,}", line)) for line in lines] == expected
    assert len({len(line) for line in lines}) == 1  # aligned


def test_predict_reads_idx_and_prints_json(
    trained: tuple[Path, str], images: tuple[Path, np.ndarray[Any, Any]]
) -> None:
    folder, pixels = images
    result = nnbackend("predict", trained[0], folder / "five.idx.gz", "--json", "--backend", "numpy")
    entries = json.loads(result.stdout)
    scores = nn.Network.load(trained[0] / "model.safetensors", "numpy").predict(pixels.reshape(5, 64) / np.float32(255))
    assert [entry["image"] for entry in entries] == [f"{folder / 'five.idx.gz'}[{index}]" for index in range(5)]
    assert [entry["class_index"] for entry in entries] == scores.argmax(axis=1).tolist()
    np.testing.assert_allclose([entry["outputs"] for entry in entries], scores, rtol=1e-6)


@pytest.mark.slow
def test_predict_sees_one_digit_in_every_kind_of_picture(
    trained: tuple[Path, str], images: tuple[Path, np.ndarray[Any, Any]]
) -> None:
    folder, _ = images

    def outputs(name: str, *options: str) -> Any:
        result = nnbackend("predict", trained[0], folder / name, "--json", "--backend", "numpy", *options)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)[0]["outputs"]

    plain = outputs("0.png")
    np.testing.assert_allclose(outputs("deep.png"), plain, rtol=1e-6)
    np.testing.assert_allclose(outputs("large.png"), plain, rtol=1e-6)
    np.testing.assert_allclose(outputs("transparent.png", "--invert"), plain, rtol=0.1, atol=0.01)
    for options in ([], ["--invert"]):
        np.testing.assert_allclose(outputs("inverted.png", *options), plain, rtol=1e-6)
    assert np.abs(np.subtract(outputs("inverted.png", "--no-invert"), plain)).max() > 0.1


def test_bad_files_are_reported_one_by_one(
    trained: tuple[Path, str], images: tuple[Path, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    folder, _ = images
    (tmp_path / "text.png").write_text("no picture")
    write_idx(tmp_path / "wide.idx", np.zeros((2, 3, 4), np.uint8))
    bad = [tmp_path / "text.png", tmp_path / "none.png", tmp_path / "wide.idx"]
    predict = ("predict", trained[0], "--json", "--backend", "numpy")
    some = nnbackend(*predict, bad[0], folder / "0.png", bad[1], bad[2], folder / "1.png")
    assert some.returncode == 1
    assert [entry["image"] for entry in json.loads(some.stdout)] == [str(folder / "0.png"), str(folder / "1.png")]
    reports = some.stderr.splitlines()
    assert [report.split(": ")[:3] for report in reports] == [["nnbackend", "error", str(name)] for name in bad]
    assert "cannot be read as a picture" in reports[0]
    assert "must have 64 pixels (8 x 8), received 3 x 4" in reports[2]
    none = nnbackend(*predict, bad[0], bad[1])
    assert (none.returncode, none.stdout, len(none.stderr.splitlines())) == (2, "", 2)


def test_a_closed_pipe_is_not_an_error(trained: tuple[Path, str], images: tuple[Path, np.ndarray[Any, Any]]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "nnbackend", "predict", trained[0], images[0] / "five.idx.gz", "--backend", "numpy"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=60) != 0
