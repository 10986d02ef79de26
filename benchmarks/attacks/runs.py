"""The small run that is attacked, and comparisons of what is left of it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from safetensors import safe_open

import nnbackend as nn
from nnbackend.cli import main, train
from nnbackend.datasets import Dataset
from nnbackend.training.callbacks.base import Callback

__all__ = ["FORCED", "RUN", "command", "fitted", "incomplete_files", "results", "small_data"]

RUN = ("train", "--dataset", "circle", "--backend", "numpy", "--hidden", "3", "--batch-size", "20", "--epochs", "2")
RUN += ("--quiet", "--no-plots", "--checkpoint-minutes", "1e-9")
#: Replaces the run by another one.
FORCED = (*RUN, "--seed", "9", "--force")


@functools.cache
def _data() -> Dataset:
    circle = nn.datasets.load("circle", n=80)
    parts = {name: getattr(circle, name)[:60] for name in ("x_train", "y_train", "x_test", "y_test")}
    return Dataset("circle", **parts, classes=circle.classes, input_shape=circle.input_shape, source="a test")


@contextmanager
def small_data() -> Iterator[None]:
    """A context in which the command trains on a few rows."""
    data = _data()
    with mock.patch.object(train, "load_data", return_value=data):
        yield


def command(*arguments: object) -> tuple[int, str]:
    """The exit code of a command in this process, and what it printed as errors."""
    errors = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        # A run that cannot write a checkpoint warns.
        warnings.simplefilter("ignore", RuntimeWarning)
        code = main([str(argument) for argument in arguments])
    return code, errors.getvalue()


def fitted(folder: Path) -> dict[str, Any]:
    """Train with all callbacks that write files, resuming if possible; the results."""
    data = _data()
    network = nn.Network([nn.Dense(3, activation="tanh"), nn.Dropout(0.2), nn.Dense(2)], 2, "numpy", seed=1)
    callbacks: list[Callback] = [
        nn.Checkpoint(folder / "checkpoints", every_steps=2),
        nn.ModelCheckpoint(folder / "best.safetensors", monitor="loss"),
        nn.CSVLogger(folder / "history.csv"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        history = network.fit(
            data.x_train, data.y_train, epochs=2, batch_size=20, loss="softmax_cross_entropy", optimizer=nn.Adam(0.01),
            callbacks=callbacks, resume=True, verbose=False,
        )  # fmt: skip
    return {"weights": _digest(network), "epochs": [_without_times(epoch) for epoch in history.epochs]}


def results(folder: Path) -> dict[str, Any] | None:
    """The results of a finished run of the command, as far as they can be reproduced; None if it is not finished."""
    if not (folder / "history.json").exists():
        return None
    history = json.loads((folder / "history.json").read_text())
    epochs = [_without_times(epoch) for epoch in history.pop("epochs")]
    network = nn.Network.load(folder / "model.safetensors", "numpy")
    return {**history, "epochs": epochs, "weights": _digest(network)}


def _digest(network: nn.Network) -> str:
    return b"".join(array.tobytes() for array in network.get_weights().values()).hex()


def _without_times(epoch: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in epoch.items() if name not in ("seconds", "samples_per_second")}


def incomplete_files(folder: Path) -> list[str]:
    """The files of a folder, except temporary ones and locks, that are not complete."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name == "lock" or (path.name.startswith(".nnbackend-") and path.name.endswith(".tmp")):
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{os.path.relpath(path, folder)}: {error}")
    return found


def _read(path: Path) -> None:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy") as file:
            assert all(isinstance(file.get_tensor(name), np.ndarray) for name in file.keys())  # noqa: SIM118
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".csv":
        lines = path.read_text().split("\n")
        assert lines.pop() == "", "the last line is not complete"
        assert len({line.count(",") for line in lines}) == 1, "its rows differ in length"
    else:
        raise ValueError("a file that no run writes")
