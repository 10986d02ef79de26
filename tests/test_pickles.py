"""Every public object can be pickled: programs send them to worker processes, and errors come back from there."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend import errors
from tests.conftest import PaddedNumpyBackend

#: Values for the constructors' parameters of the error classes, by name.
ARGUMENTS: dict[str, Any] = {
    "message": "wrong", "kind": "layer", "received": "dence", "valid": ["dense", "dropout"], "name": "cupy",
    "reason": "no GPU", "remedy": "Use another.", "rank": 3, "epoch": 2, "step": 7, "looked": ("here", "there"),
}  # fmt: skip


def error_classes() -> list[type[errors.NNBackendError]]:
    """All error classes of the package, public or not."""
    root = Path(nn.__file__).parent
    for path in root.rglob("*.py"):
        if re.search(r"^class \w+Error\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            try:
                importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts))
            except ImportError:
                continue  # it needs a package that is not installed
    found, new = set(), {errors.NNBackendError}
    while new:
        found |= new
        new = {sub for each in new for sub in each.__subclasses__() if sub.__module__.startswith("nnbackend")} - found
    return sorted(found, key=lambda each: each.__name__)


def made(kind: type[errors.NNBackendError]) -> errors.NNBackendError:
    if not inspect.isfunction(kind.__init__):
        return kind("wrong", 3)  # it has Exception's constructor
    names = list(inspect.signature(kind.__init__).parameters)
    return kind(*(ARGUMENTS[name] for name in names[1:]))


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_errors_keep_their_message_and_attributes(kind, protocol):
    error = made(kind)
    error.add_note("in fold 3")
    for found in (pickle.loads(pickle.dumps(error, protocol)), copy.deepcopy(error), copy.copy(error)):
        assert type(found) is kind
        assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))


class StrangeError(errors.UnknownNameError):
    """Another package's error, with a constructor of its own."""

    def __init__(self, *, place: str) -> None:
        super().__init__("place", place, ["here"])
        self.place = place


def test_errors_of_other_packages_are_pickled_like_ours():
    found = pickle.loads(pickle.dumps(StrangeError(place="hear")))
    assert (found.place, found.nearest, str(found)) == ("hear", ("here",), "unknown place 'hear': did you mean 'here'?")


def test_an_error_about_a_value_that_cannot_be_pickled():
    with pytest.raises(errors.UnknownNameError) as caught:
        nn.losses.get_loss(lock := threading.Lock())
    found = pickle.loads(pickle.dumps(caught.value))
    assert (str(found), found.received) == (str(caught.value), repr(lock))


@pytest.fixture(params=["numpy", "numba"])
def named(request) -> str:
    return request.param


def test_a_backend_is_found_by_its_name(named):
    backend = nn.get_backend(named)
    for found in (pickle.loads(pickle.dumps(backend)), copy.copy(backend), copy.deepcopy(backend)):
        assert found is backend


def test_a_backend_made_by_the_user_keeps_its_settings(named):
    backend = type(nn.get_backend(named))(threads=1)
    found = pickle.loads(pickle.dumps(backend))
    assert type(found) is type(backend)
    assert found.products.threads == 1
    x, layers = np.ones((2, 3), np.float32), [nn.Dense(2)]
    np.testing.assert_array_equal(
        nn.Network(layers, 3, backend=found).predict(x), nn.Network(layers, 3, backend=backend).predict(x)
    )


def test_a_network_keeps_a_backend_without_a_name():
    """It would not be found by its name where the network is unpickled."""
    network = nn.Network([nn.Dense(2)], 3, backend=PaddedNumpyBackend(threads=1))
    found = pickle.loads(pickle.dumps(network))
    assert (type(found.backend), found.backend.products.threads) == (PaddedNumpyBackend, 1)


def test_an_estimator_with_a_backend_object(named):
    base = pytest.importorskip("sklearn.base")
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 2
    model = nn.MLPClassifier((3,), max_iter=2, tol=0, random_state=0, backend=nn.get_backend(named))
    with pytest.warns(UserWarning, match="not converged"):
        model.fit(x, y)
    for found in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert found.backend is model.backend
        np.testing.assert_array_equal(found.predict_proba(x), model.predict_proba(x))
    assert base.clone(model).backend is model.backend


def public_objects() -> list[Any]:
    """An object of every public class that is made from a few numbers."""
    history = nn.History()
    history.append({"epoch": 1, "loss": 0.5}, np.array([0.6, 0.4]))
    network = nn.Network([nn.Dense(3, activation="relu"), nn.Dense(2)], 4, backend="numpy")
    given = {
        nn.Activation: ("relu",), nn.Dense: (3,), nn.Dropout: (0.1,), nn.CosineDecay: (0.1, 3), nn.Uniform: (-1, 1),
        nn.ExponentialDecay: (0.1, 0.9), nn.StepDecay: (0.1, 0.5, 2), nn.Warmup: (2, 0.1), nn.ReduceOnPlateau: (0.1,),
        nn.Parameter: ("scale", (3,), nn.Zeros()), nn.CSVLogger: ("run.csv",), nn.Checkpoint: ("run",),
        nn.ModelCheckpoint: ("best.safetensors",), nn.BackendInfo: ("numpy", True),
    }  # fmt: skip
    ready = [network, history, network.snapshot(), nn.losses.get_loss("mean_squared_error"), nn.presets.PRESETS]
    ready += [nn.datasets.load("xor"), *map(nn.get_backend, ("numpy", "numba"))]
    # Classes that other packages derive from, that a step makes, or that need a device or another package's file.
    left_out = {nn.Backend, nn.Callback, nn.Initializer, nn.Layer, nn.LayerStep, nn.Optimizer, nn.Schedule}
    left_out |= {nn.BatchStream, nn.LiveCurves, nn.TensorBoard, *map(type, ready)}
    kinds = []
    for name in set(nn.__all__) - {"CupyBackend"}:
        try:
            kinds.append(getattr(nn, name))
        except ImportError:
            continue  # it needs a package that is not installed
    return ready + [kind(*given.get(kind, ())) for kind in kinds if inspect.isclass(kind) and kind not in left_out]


@pytest.mark.parametrize("thing", public_objects(), ids=lambda thing: type(thing).__name__)
def test_public_objects(thing):
    for found in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
        assert type(found) is type(thing)
        # Objects whose repr shows their contents, and not their place in memory.
        if " at 0x" not in repr(thing):
            assert repr(found) == repr(thing)
