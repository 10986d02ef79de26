"""Write the files of an older version that `tests/saving/test_older_versions.py` reads.

Run with the package of that version, which the files' folder is named after:

    git worktree add ../older c6ffbc3
    PYTHONPATH=../older python -P tests/older/write.py tests/older/c6ffbc3

Do not change existing files, which represent those of users; write another folder for another version.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# `-P` removes this folder from the path, so that it does not hide the other version's package.
sys.path.append(str(Path(__file__).resolve().parent))

import runs

import nnbackend as nn

#: Epochs after which a run of the command line is interrupted, and the total.
_AFTER, _OF = 15, 50


def write_models(folder: Path) -> dict[str, Any]:
    """Model files, and the predictions of their networks."""
    folder.mkdir()
    expected = {}
    x, y = runs.data()
    for name, (make, options) in runs.MODELS.items():
        network = make("numpy")
        rows = x.reshape(-1, *network.input_shape)
        if options is not None:
            labels = y > 1 if network.output_shape == (1,) else y
            network.fit(rows, labels, **{"epochs": 3, "loss": "softmax_cross_entropy", "verbose": False, **options})
        network.save(folder / f"{name}.safetensors")
        expected[name] = {"config": network.config(), "predictions": network.predict(rows[:9]).tolist()}
    return expected


def write_checkpoints(folder: Path) -> dict[str, Any]:
    """Checkpoints of interrupted runs, and the results of the uninterrupted runs."""
    expected = {}
    for name in runs.CHECKPOINTS:
        try:
            runs.train(name, folder / name, cut=True)
        except RuntimeError:
            expected[name] = runs.figures(*runs.train(name, folder / "whole", cut=False))
        shutil.rmtree(folder / "whole")
    (folder / "log.csv").unlink(missing_ok=True)
    return expected


def write_runs(folder: Path) -> dict[str, Any]:
    """Folders of ``nnbackend train``: one that is finished, one that was killed, and one that Ctrl-C ended."""
    folder.mkdir()
    for name, number in (("finished", None), ("killed", signal.SIGKILL), ("interrupted", signal.SIGINT)):
        _train(folder / name, number)
    network = nn.Network.load(folder / "finished" / "model.safetensors", backend="numpy")
    history = json.loads((folder / "finished" / "history.json").read_text(encoding="utf-8"))
    x = nn.datasets.load("circle").x_test[:9]
    return {
        "weights": {name: value.tolist() for name, value in network.get_weights().items()},
        "loss": [epoch["loss"] for epoch in history["epochs"]],
        "val_loss": [epoch["val_loss"] for epoch in history["epochs"]],
        "test": history["test"],
        "predictions": network.predict(x).tolist(),
    }


def _train(folder: Path, number: int | None) -> None:
    options = (
        f"--dataset circle --backend numpy --hidden 6 --epochs {_OF} --batch-size 16 --schedule plateau --dtype float64"
    )
    command = [sys.executable, "-m", "nnbackend", "train", *options.split(), "--patience", str(_OF), "--out", folder]
    more = ["--checkpoint-minutes", "0.00001", "--no-plots", "--quiet"]
    process = subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    table = folder / "history.csv"
    while number and process.poll() is None:
        if table.exists() and len(table.read_text(encoding="utf-8").splitlines()) > _AFTER:
            process.send_signal(number)
            break
        time.sleep(0.001)
    process.wait()
    # Keep only the newest checkpoint, because these are the largest files.
    older = sorted(folder.rglob("checkpoint-*"))[:-1]
    for leftover in (*older, *folder.rglob("lock"), *folder.rglob("*.tmp*")):
        leftover.unlink()


def write_pickles(folder: Path) -> dict[str, Any]:
    """Pickles of all public objects, with predictions and metrics of their contents."""
    folder.mkdir()
    expected: dict[str, Any] = {}
    network, history, callbacks = _trained()
    numba = runs.MODELS["rich"][0]("numba")
    numba.set_weights(network.get_weights())
    numba.set_loss("softmax_cross_entropy")
    objects: dict[str, Any] = {
        "network": network,
        "network-numba": numba,
        "history": history,
        "callbacks": callbacks,
        "optimizers": [make(make_rate()) for make in _OPTIMIZERS for make_rate in runs.SCHEDULES.values()],
        "schedules": {name: nn.SGD(make()).schedule for name, make in runs.SCHEDULES.items()},
        "initializers": [*_INITIALIZERS, nn.initializers.Given(np.eye(3))],
        "layers": [*runs.MODELS["rich"][0]("numpy").layers, *runs.MODELS["images"][0]("numpy").layers],
        "others": [network.loss, nn.Parameter("scale", (3,), nn.Zeros()), *nn.available_backends()],
        "backend": nn.NumpyBackend(threads=1),
        "data-set": nn.datasets.load("xor"),
        "errors": _ERRORS,
        "classes": _classes(),
    }
    objects["schedules"]["plateau"].observe({"val_loss": 1.0})
    objects["schedules"]["plateau"].observe({"val_loss": 2.0})
    x = runs.data()[0]
    expected["network"] = network.predict(x[:9]).tolist()
    expected["history"] = {**history.to_dict(), "step_losses": [losses.tolist() for losses in history.step_losses]}
    expected["callbacks"] = [[callback.best_epoch, callback.best_value] for callback in callbacks[:2]]
    times = np.arange(0, 5, 0.4)
    rates = {name: [kept.rate(time) for time in times] for name, kept in objects["schedules"].items()}
    expected["schedules"] = {"times": times.tolist(), "rates": rates}
    expected["optimizers"] = [repr(optimizer) for optimizer in objects["optimizers"]]
    expected["layers"] = [[type(layer).__name__, layer.config()] for layer in objects["layers"]]
    expected["errors"] = [[type(error).__name__, str(error)] for error in _ERRORS]
    expected["classes"] = sorted(objects["classes"])
    _write(folder, objects)
    expected["estimators"] = write_estimators(folder)
    return expected


def _trained() -> tuple[nn.Network, nn.History, list[Any]]:
    """A network, its history, and its callbacks."""
    x, y = runs.data()
    network = runs.MODELS["rich"][0]("numpy")
    callbacks = [nn.EarlyStopping("loss", patience=2), nn.KeepBest("val_accuracy")]
    options = {"epochs": 3, "loss": "softmax_cross_entropy", "verbose": False, "validation_data": (x[:25], y[:25])}
    history = network.fit(x, y, callbacks=callbacks, **options)
    files = [nn.CSVLogger("log.csv"), nn.ModelCheckpoint("best.safetensors"), nn.Checkpoint("folder", every_steps=3)]
    return network, history, [*callbacks, *files, nn.LiveCurves(), nn.TensorBoard("logs"), nn.Callback()]


_OPTIMIZERS = (
    nn.SGD,
    partial(nn.SGD, momentum=0.9),
    partial(nn.SGD, momentum=0.9, nesterov=True, weight_decay=0.01),
    partial(nn.Adam, beta1=0.8),
    nn.AdamW,
    partial(nn.RMSprop, decay=0.8),
)
_INITIALIZERS = (
    *(nn.HeNormal(), nn.HeUniform(), nn.GlorotNormal(), nn.GlorotUniform(), nn.LeCunNormal(), nn.LeCunUniform()),
    *(nn.Normal(0.5, 0.1), nn.Uniform(-0.3, 0.1), nn.Zeros()),
)
_ERRORS = [
    nn.errors.InvalidInputError("wrong"),
    nn.errors.BackendUnavailableError("cupy", "no GPU", "buy one"),
    nn.errors.DataError("damaged"),
    nn.errors.ModelFileError("damaged"),
    nn.errors.DistributedError("gone", 1),
    nn.errors.FolderInUseError("in use"),
    nn.errors.OutOfMemoryError("full"),
    nn.errors.TrainingDivergedError("NaN", 2, 3),
]


def _classes() -> dict[str, type]:
    """Public classes, whose module names are stored in pickles."""
    found = {name: getattr(nn, name) for name in nn.__all__ if name != "CupyBackend"}
    return {name: value for name, value in found.items() if isinstance(value, type)}


def write_estimators(folder: Path) -> dict[str, Any]:
    """Fitted estimators, and their predictions now and after another epoch."""
    expected = {}
    for name, (estimator, x, y) in runs.estimators().items():
        _write(folder, {name: estimator.fit(x, y)})
        expected[name] = runs.fitted_figures(estimator, x, y)
    _write(folder, {"regressor-unfitted": nn.MLPRegressor(alpha=0.5)})
    return expected


def _write(folder: Path, objects: Mapping[str, Any]) -> None:
    for name, kept in objects.items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(kept, protocol=4))


def main() -> None:
    """Write the folder that the command line names."""
    folder = Path(sys.argv[1]).absolute()
    if Path(nn.__file__).is_relative_to(Path(__file__).resolve().parents[2]):
        print("note: the package is that of this checkout, and not an older one's", file=sys.stderr)
    warnings.simplefilter("ignore")
    folder.mkdir()
    os.chdir(folder)
    expected = {
        "arithmetic": runs.arithmetic(),
        "models": write_models(folder / "models"),
        "checkpoints": write_checkpoints(folder / "checkpoints"),
        "runs": write_runs(folder / "runs"),
        "pickles": write_pickles(folder / "pickles"),
    }
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
