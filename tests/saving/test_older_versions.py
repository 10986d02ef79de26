"""Files and pickles of an older version can be read, and their runs resume as if uninterrupted.

`tests/older/write.py` wrote them with the package of the commit in the name of their folder.
"""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.schedules import Constant
from nnbackend.training.checkpoints.fingerprint import optimizer_text
from tests.older import runs

#: Pickles name modules by their old names, which warn.
MOVED = pytest.mark.filterwarnings("ignore:nnbackend.* is now nnbackend:DeprecationWarning")

FOLDER = Path(__file__).parents[1] / "older" / "c6ffbc3"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
#: If NumPy's arithmetic is the same as on the machine that wrote the files, results are bit-identical.
SAME_BITS = runs.arithmetic() == EXPECTED["arithmetic"]
ROUNDING = 1e-5


def assert_agrees(found: Any, expected: Any, backend: str = "numpy") -> None:
    """Check that structure and numbers are the same, bit for bit or up to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_agrees(found[name], expected[name], backend)
    elif isinstance(expected, list) and not all(isinstance(item, int | float) for item in expected):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_agrees(one, other, backend)
    elif isinstance(expected, list | float) and not (SAME_BITS and backend == "numpy"):
        np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING)
    else:
        assert found == expected


def unpickled(name: str) -> Any:
    with warnings.catch_warnings():
        # scikit-learn warns of pickles that were made with another of its versions.
        warnings.filterwarnings("ignore", message="Trying to unpickle estimator")
        return pickle.loads((FOLDER / "pickles" / f"{name}.pickle").read_bytes())


def rows_for(network: nn.Network) -> Any:
    return runs.data()[0][:9].reshape(-1, *network.input_shape)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", runs.MODELS)
def test_model_files(name, backend):
    network = nn.Network.load(FOLDER / "models" / f"{name}.safetensors", backend=backend, custom_layers=[runs.Shift])
    expected = EXPECTED["models"][name]
    assert network.config() == expected["config"]
    assert_agrees(network.predict(rows_for(network)).tolist(), expected["predictions"], backend)


@pytest.mark.parametrize("name", ["rich", "float64", "squares"])
def test_a_model_file_is_written_byte_for_byte_as_before(name, tmp_path):
    """Byte for byte, so that the previous version can read it."""
    original = FOLDER / "models" / f"{name}.safetensors"
    nn.Network.load(original, backend="numpy").save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == original.read_bytes()


@pytest.mark.parametrize("name", runs.CHECKPOINTS)
def test_a_run_resumes_from_its_checkpoint(name, tmp_path):
    shutil.copytree(FOLDER / "checkpoints" / name, tmp_path / name)
    (checkpoint,) = (tmp_path / name).glob("*.safetensors")
    begun = nn.Network.load(checkpoint, backend="numpy")
    assert f"{begun.steps_trained:012d}" in checkpoint.name
    network, history = runs.train(name, tmp_path / name, cut=False)
    assert_agrees(runs.figures(network, history), EXPECTED["checkpoints"][name], name.partition("-")[0])


@pytest.mark.parametrize("name", runs.CHECKPOINTS)
def test_a_complete_run_has_the_results_of_the_older_version(name, tmp_path):
    network, history = runs.train(name, tmp_path / name, cut=False)
    assert_agrees(runs.figures(network, history), EXPECTED["checkpoints"][name], name.partition("-")[0])


def nnbackend(*arguments: str | Path) -> str:
    """The output of a command."""
    command = [sys.executable, "-m", "nnbackend", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def of_folder(folder: Path) -> dict[str, Any]:
    """The results in a finished run's folder, in the form of the expected values."""
    network = nn.Network.load(folder / "model.safetensors", backend="numpy")
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return {
        "weights": {name: value.tolist() for name, value in network.get_weights().items()},
        "loss": [epoch["loss"] for epoch in history["epochs"]],
        "val_loss": [epoch["val_loss"] for epoch in history["epochs"]],
        "test": history["test"],
        "predictions": network.predict(nn.datasets.load("circle").x_test[:9]).tolist(),
    }


@pytest.mark.parametrize("name", ["killed", "interrupted"])
def test_a_run_of_the_command_line_resumes(name, tmp_path):
    folder = tmp_path / name
    shutil.copytree(FOLDER / "runs" / name, folder)
    nnbackend("train", "--resume", folder, "--no-plots", "--quiet")
    assert_agrees(of_folder(folder), EXPECTED["runs"])
    assert not (folder / "checkpoints").exists()


def test_a_finished_run_of_the_command_line(tmp_path):
    folder = tmp_path / "finished"
    shutil.copytree(FOLDER / "runs" / "finished", folder)
    assert_agrees(of_folder(folder), EXPECTED["runs"])
    share = f"{100 * EXPECTED['runs']['test']['accuracy']:.2f}"
    assert share in nnbackend("train", "--resume", folder)
    assert share in nnbackend("evaluate", folder, "--backend", "numpy")


@pytest.mark.parametrize("name", ["network", "network-numba"])
def test_pickled_networks(name):
    network = unpickled(name)
    assert network.backend.name == ("numba" if name.endswith("numba") else "numpy")
    assert_agrees(network.predict(rows_for(network)).tolist(), EXPECTED["pickles"]["network"], network.backend.name)


def test_a_pickled_network_continues_training():
    x, y = runs.data()
    network = unpickled("network")
    other = nn.Network.from_config(network.config(), backend="numpy")
    other.set_weights(network.get_weights())
    assert network.fit(x, y, verbose=False, epochs=1)["loss"] == other.fit(x, y, verbose=False, epochs=1)["loss"]


def test_a_pickled_history():
    history = unpickled("history")
    found = {**history.to_dict(), "step_losses": [losses.tolist() for losses in history.step_losses]}
    assert isinstance(history, nn.History)
    assert found == EXPECTED["pickles"]["history"]
    assert len(history) == 3


@MOVED
def test_pickled_callbacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callbacks = unpickled("callbacks")
    kinds = [nn.EarlyStopping, nn.KeepBest, nn.CSVLogger, nn.ModelCheckpoint, nn.Checkpoint, nn.LiveCurves]
    assert [type(callback) for callback in callbacks] == [*kinds, nn.TensorBoard, nn.Callback]
    assert [[kept.best_epoch, kept.best_value] for kept in callbacks[:2]] == EXPECTED["pickles"]["callbacks"]
    x, y = runs.data()
    network = runs.MODELS["rich"][0]("numpy")
    options = {"epochs": 2, "loss": "softmax_cross_entropy", "verbose": False, "validation_data": (x, y)}
    network.fit(x, y, callbacks=[*callbacks[:5], callbacks[-1]], **options)
    assert (tmp_path / "log.csv").exists()
    assert (tmp_path / "best.safetensors").exists()
    assert list((tmp_path / "folder").glob("checkpoint-*"))


def test_pickled_schedules():
    kept, expected = unpickled("schedules"), EXPECTED["pickles"]["schedules"]
    assert kept.keys() == runs.SCHEDULES.keys()
    for name, schedule in kept.items():
        rates = [schedule.rate(time) for time in expected["times"]]
        np.testing.assert_allclose(rates, expected["rates"][name], rtol=1e-14)
    # The state after two epochs, the second of which was worse.
    assert kept["plateau"].state() == {"scale": 0.5, "best": 1.0, "waited": 0}


@pytest.mark.parametrize("place", range(0, 36, 5))
def test_pickled_optimizers(place):
    """Each trains like a new one with the same settings."""
    optimizer = unpickled("optimizers")[place]
    settings = {name: value for name, value in vars(optimizer).items() if name not in ("schedule", "slots")}
    fresh = type(optimizer)(learning_rate=optimizer.schedule, **settings)
    x, y = runs.data()
    losses = []
    for each in (optimizer, fresh):
        network = runs.MODELS["rich"][0]("numpy")
        options = {"epochs": 2, "loss": "softmax_cross_entropy", "verbose": False, "validation_data": (x, y)}
        losses.append(network.fit(x, y, optimizer=each, **options)["loss"])
    assert losses[0] == losses[1]


def test_the_repr_of_pickled_optimizers():
    """And the text that describes them in checkpoints, which must stay the same."""
    optimizers = unpickled("optimizers")
    assert [optimizer_text(optimizer) for optimizer in optimizers] == EXPECTED["pickles"]["optimizers"]
    for optimizer in optimizers:
        again = eval(repr(optimizer), vars(nn) | {"Constant": Constant})
        assert repr(again) == repr(optimizer)
        assert optimizer_text(again) == optimizer_text(optimizer)


@MOVED
def test_pickled_layers():
    layers = unpickled("layers")
    assert [[type(layer).__name__, layer.config()] for layer in layers] == EXPECTED["pickles"]["layers"]
    rich = nn.Network(layers[:5], 12, backend="numpy", seed=5)
    expected = runs.MODELS["rich"][0]("numpy").get_weights()
    assert {name: value.tolist() for name, value in rich.get_weights().items()} == {
        name: value.tolist() for name, value in expected.items()
    }


def test_pickled_initializers():
    *kept, given = unpickled("initializers")
    for initializer in kept:
        fresh = nn.initializers.get_initializer(initializer.config())
        values = [each.sample(np.random.default_rng(1), (4, 3)) for each in (initializer, fresh)]
        assert type(initializer) is type(fresh)
        np.testing.assert_array_equal(*values)
    np.testing.assert_array_equal(given.sample(np.random.default_rng(1), (3, 3)), np.eye(3))


def test_pickled_backends_data_sets_losses_and_parameters():
    backend, data = unpickled("backend"), unpickled("data-set")
    assert isinstance(backend, nn.NumpyBackend)
    network = nn.Network([nn.Dense(2)], 2, backend=backend)
    np.testing.assert_array_equal(
        network.predict(data.x_test), nn.Network([nn.Dense(2)], 2, "numpy").predict(data.x_test)
    )
    assert isinstance(data, nn.datasets.Dataset)
    loss, parameter, *backends = unpickled("others")
    assert (loss.name, loss.output_activation) == ("softmax_cross_entropy", "softmax")
    assert parameter == nn.Parameter("scale", (3,), parameter.initializer)
    assert {info.name for info in backends} >= {"numpy", "numba", "cupy"}
    assert all(isinstance(info, nn.BackendInfo) for info in backends)


def test_pickled_errors():
    errors = unpickled("errors")
    assert [[type(error).__name__, str(error)] for error in errors] == EXPECTED["pickles"]["errors"]
    assert all(type(error) is getattr(nn.errors, type(error).__name__) for error in errors)
    assert (errors[4].rank, errors[-1].epoch, errors[-1].step) == (1, 2, 3)


@MOVED
def test_classes_are_found_where_pickles_look_for_them():
    classes = unpickled("classes")
    assert sorted(classes) == EXPECTED["pickles"]["classes"]
    for name, found in classes.items():
        assert found is getattr(nn, name)


@pytest.mark.parametrize("name", EXPECTED["pickles"]["estimators"])
def test_pickled_estimators(name):
    """Their predictions are unchanged, now and after another epoch."""
    pytest.importorskip("sklearn")
    estimator = unpickled(name)
    _, x, y = runs.estimators()[name]
    expected = EXPECTED["pickles"]["estimators"][name]
    assert_agrees(runs.fitted_figures(estimator, x, y), expected, "numba" if name.endswith("numba") else "numpy")


def test_a_pickled_estimator_that_is_not_fitted():
    pytest.importorskip("sklearn")
    estimator = unpickled("regressor-unfitted")
    assert isinstance(estimator, nn.MLPRegressor)
    assert estimator.get_params() == nn.MLPRegressor(alpha=0.5).get_params()
