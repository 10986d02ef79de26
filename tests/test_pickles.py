"""Every public object can be pickled: programs send them to worker processes, and errors come back from there."""

from __future__ import annotations

import copy
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
    "backend": "third", "operation": "pool",
    "message": "wrong", "kind": "layer", "received": "dence", "valid": ["dense", "dropout"], "name": "cupy",
    "reason": "no GPU", "remedy": "Use another.", "rank": 3, "epoch": 2, "step": 7, "looked": ("here", "there"),
    "function": "fit",
}  # fmt: skip


def error_classes() -> list[str]:
    """The module and name of every error class of the package, public or not, without an import of libraries."""
    root = Path(nn.__file__).parent
    classes = {
        f"{'.'.join(path.relative_to(root.parent).with_suffix('').parts)}:{name}": re.findall(r"\w+", bases)
        for path in root.rglob("*.py")
        for name, bases in re.findall(r"^class (\w+)\((.*)\):", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    found = {"nnbackend.errors:NNBackendError"}
    while new := {each for each, bases in classes.items() if {name.split(":")[1] for name in found} & {*bases}} - found:
        found |= new
    return sorted(found)


def made(kind: type[errors.NNBackendError]) -> errors.NNBackendError:
    if not inspect.isfunction(kind.__init__):
        return kind("wrong", 3)  # it has Exception's constructor
    names = list(inspect.signature(kind.__init__).parameters)
    return kind(*(ARGUMENTS[name] for name in names[1:]))


@pytest.mark.parametrize("where", error_classes())
@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_errors_keep_their_message_and_attributes(where, protocol):
    module, name = where.split(":")
    kind = getattr(pytest.importorskip(module, exc_type=ImportError), name)
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


#: The arguments of classes that need some.
GIVEN: dict[str, tuple[Any, ...]] = {
    "Embedding": (3,), "ParametricActivation": ("mish",),
    "Conv1D": (2, 3), "Conv2D": (2, 3), "Reshape": ((2, 2),), "Residual": ([nn.Dense(3)],),
    "Activation": ("relu",), "Dense": (3,), "Dropout": (0.1,), "CosineDecay": (0.1, 3), "Uniform": (-1, 1),
    "CosineRestarts": (0.1, 3), "Polynomial": (0.1, 3), "LogCosine": (0.1, 3),
    "ExponentialDecay": (0.1, 0.9), "OneCycle": (0.1, 3), "StepDecay": (0.1, 0.5, 2), "Warmup": (2, 0.1),
    "ReduceOnPlateau": (0.1,),
    "Parameter": ("scale", (3,), nn.Zeros()), "CSVLogger": ("run.csv",), "Checkpoint": ("run",),
    "ModelCheckpoint": ("best.safetensors",), "BackendInfo": ("numpy", True), "Network": ([nn.Dense(2)], 3, "numpy"),
    "Ensemble": ([nn.Network([nn.Dense(2)], 3, "numpy")],), "PerNetwork": ([1, None],),
    "MLPSearchCV": (None, {"alpha": [0, 1]}), "ArrayApiBackend": (np,),
}  # fmt: skip

#: Classes to derive from, that a step makes, that hold a generator, or that need a device or an open file.
LEFT_OUT = {
    "Backend", "BatchStream", "Callback", "CupyBackend", "Initializer", "Layer", "LayerStep", "LiveCurves", "Optimizer",
    "Schedule", "TensorBoard",
}  # fmt: skip


def check_copies(thing: Any) -> Any:
    """The pickled copy of an object; checks that copies look like it."""
    pickled = pickle.loads(pickle.dumps(thing))
    for found in (pickled, copy.deepcopy(thing)):
        assert type(found) is type(thing)
        # Objects whose repr shows their contents, and not their place in memory.
        if " at 0x" not in repr(thing):
            assert repr(found) == repr(thing)
    return pickled


@pytest.mark.parametrize("name", sorted(set(nn.__all__) - LEFT_OUT))
def test_public_classes(name):
    try:
        kind = getattr(nn, name)
    except ImportError as error:
        pytest.skip(str(error))
    if inspect.isclass(kind):
        check_copies(kind(*GIVEN.get(name, ())))


def test_results():
    network = nn.Network([nn.Dense(3, activation="relu"), nn.Dense(2)], 4, backend="numpy")
    x, y = np.ones((6, 4)), np.zeros(6, int)
    history = network.fit(x, y, epochs=1, loss="softmax_cross_entropy")
    assert check_copies(history)["loss"] == history["loss"]
    np.testing.assert_array_equal(check_copies(network).predict(x), network.predict(x))
    network.restore(check_copies(network.snapshot()))
    for thing in (nn.losses.get_loss("mean_squared_error"), nn.presets.PRESETS, nn.datasets.load("xor")):
        check_copies(thing)
