"""The public entry points, each with one argument left open."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend as nn
from nnbackend.backends.registry import get_backend
from nnbackend.errors import NNBackendError
from tests.doors.kinds import LABELS, ROWS, Kind

__all__ = ["ESTIMATORS", "NETWORKS", "Door", "Outcome", "outcome"]

LOSS = "softmax_cross_entropy"
_TOLERANCE = {"rtol": 2e-5, "atol": 2e-6}
#: How messages of networks begin.
_NAMES = ("x ", "y ", "labels ", "samples ", "targets ", "the network ", "rows of class probabilities ")


@dataclass(frozen=True)
class Outcome:
    """What happened, in a word, and the message.

    "taken" is the result of the plain array, "refused" one clear error with nothing changed. Networks must do one of
    these. Estimators leave much to scikit-learn: with "other" they learn something else than from the plain array, such
    as several labels a row; "raw" is another library's error or warning.
    """

    word: str
    detail: str = ""


@dataclass
class Door:
    """An entry point with one open argument.

    Attributes
    ----------
    name : str
    role : "x" or "y"
    call : callable
        Called with a value of the open argument; returns numbers.
    expected : array
        What it returns for the plain array, in float64 on NumPy.
    prepare : callable
        Called before every call.
    state : callable
        Returns the bytes of all that a refused call must not change.
    raises : type or tuple of types
        What a refused call may raise.
    """

    name: str
    role: str
    call: Callable[[Any], Any]
    expected: Any
    prepare: Callable[[], Any]
    state: Callable[[], bytes]
    raises: Any


def outcome(door: Door, kind: Kind, folder: Path) -> Outcome:
    """Call the door with a value of that kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # SciPy and h5py convert by NumPy's matrix.
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        warnings.filterwarnings("ignore", "A column-vector y was passed")
        warnings.filterwarnings("ignore", "X has feature names")
        door.prepare()
        given, before = kind.make(folder), door.state()
        try:
            found = door.call(given)
        except Exception as error:
            return _refused(door, error, before)
        finally:
            if kind.name.startswith("HDF5"):
                given.file.close()
    if np.shape(found) != np.shape(door.expected) or not np.allclose(found, door.expected, **_TOLERANCE):
        return Outcome("wrong" if door.raises is NNBackendError else "other", f"{found} instead of {door.expected}")
    return Outcome("taken")


def _refused(door: Door, error: Exception, before: bytes) -> Outcome:
    message = str(error)
    if not isinstance(error, door.raises) or not message:
        return Outcome("raw", f"{type(error).__name__}: {message}")
    if door.raises is NNBackendError and not message.removeprefix("validation_data: ").startswith(_NAMES):
        return Outcome("refused unclearly", message)
    if door.state() != before:
        return Outcome("refused after a change", message)
    return Outcome("refused", message)


# ---- networks --------------------------------------------------------------------------------------------------------


class _Net:
    """A trained network that goes back to its first weights before every call."""

    def __init__(self, backend: Any, dtype: str) -> None:
        self.network = nn.Network([nn.Dense(5, "tanh"), nn.Dense(2)], 3, backend, seed=1, dtype=dtype, input_scale=1)
        self.optimizer = nn.SGD(0.5)
        self.network.set_loss(LOSS)
        self._first = self.network.snapshot()

    def again(self) -> None:
        self.network.restore(self._first)
        self.network.steps_trained = self.network.epochs_trained = 0

    def state(self) -> bytes:
        network = self.network
        weights = b"".join(array.tobytes() for array in network.get_weights().values())
        counts = network.steps_trained, network.epochs_trained, network.input_description, network.loss
        return weights + repr(counts).encode()

    def trained(self) -> Any:
        return np.concatenate([array.ravel() for array in self.network.get_weights().values()])

    def fit(self, x: Any, y: Any) -> Any:
        self.network.fit(x, y, epochs=1, batch_size=6, loss=LOSS, optimizer=self.optimizer, verbose=False)
        return self.trained()

    def train_on_batch(self, x: Any, y: Any) -> Any:
        self.network.train_on_batch(x, y, optimizer=self.optimizer)
        return self.trained()

    def evaluate(self, x: Any, y: Any) -> Any:
        return list(self.network.evaluate(x, y).values())

    def validate(self, x: Any, y: Any) -> Any:
        options = {"epochs": 1, "batch_size": 6, "loss": LOSS, "optimizer": self.optimizer, "verbose": False}
        history = self.network.fit(ROWS, LABELS, validation_data=(x, y), **options)
        return [history["val_loss"][0], history["val_accuracy"][0]]

    def predict(self, x: Any) -> Any:
        return self.network.predict(x)

    def predict_classes(self, x: Any) -> Any:
        return self.network.predict_classes(x)


def _x(method: str) -> Callable[[Any], Door]:
    def make(backend: Any) -> Door:
        net, reference = _Net(backend, "float32"), _Net("numpy", "float64")
        others = () if method.startswith("predict") else (LABELS,)
        call, plain = getattr(net, method), getattr(reference, method)
        return Door(
            method, "x", lambda value: call(value, *others), plain(ROWS, *others), net.again, net.state, NNBackendError
        )

    return make


def _y(method: str) -> Callable[[Any], Door]:
    def make(backend: Any) -> Door:
        net, reference = _Net(backend, "float32"), _Net("numpy", "float64")
        call, plain = getattr(net, method), getattr(reference, method)
        return Door(
            method, "y", lambda value: call(ROWS, value), plain(ROWS, LABELS), net.again, net.state, NNBackendError
        )

    return make


_METHODS = ("fit", "train_on_batch", "evaluate", "validate")
NETWORKS: dict[str, Callable[[Any], Door]] = {
    **{f"{method} x": _x(method) for method in (*_METHODS, "predict", "predict_classes")},
    **{f"{method} y": _y(method) for method in _METHODS},
}

# ---- estimators ------------------------------------------------------------------------------------------------------


class _Fitted:
    """A fitted estimator that goes back to its first state before every call."""

    def __init__(self, kind: type, backend: Any) -> None:
        options = {"max_iter": 1, "solver": "sgd", "random_state": 0, "batch_size": 6, "dtype": "float64"}
        self._made = kind(hidden_layer_sizes=(3,), backend=backend.name, **options)
        self._first = copy.deepcopy(self._quiet_fit(ROWS, LABELS))

    def again(self) -> None:
        self._made = copy.deepcopy(self._first)

    def state(self) -> bytes:
        return b"".join(array.tobytes() for array in (*self._made.coefs_, *self._made.intercepts_))

    def _quiet_fit(self, x: Any, y: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "training has not converged")
            return self._made.fit(x, y)

    def fit(self, x: Any, y: Any) -> Any:
        made = self._quiet_fit(x, y)
        return np.concatenate([array.ravel() for array in (*made.coefs_, *made.intercepts_)])

    def predict(self, x: Any) -> Any:
        return self._made.predict(x)


def _estimator_door(kind: type, method: str, role: str) -> Callable[[Any], Door]:
    def make(backend: Any) -> Door:
        fitted, plain = _Fitted(kind, backend), _Fitted(kind, get_backend("numpy"))
        call, reference = getattr(fitted, method), getattr(plain, method)
        others = {"x": {"y": LABELS}, "y": {"x": ROWS}}[role] if method == "fit" else {}
        expected = reference(**{**others, role: {"x": ROWS, "y": LABELS}[role]})
        return Door(
            method,
            role,
            lambda value: call(**{**others, role: value}),
            expected,
            fitted.again,
            fitted.state,
            _ESTIMATOR_ERRORS,
        )

    return make


_ESTIMATOR_ERRORS = (ValueError, TypeError)
ESTIMATORS: dict[str, Callable[[Any], Door]] = {
    f"{kind.__name__}.{method} {role}": _estimator_door(kind, method, role)
    for kind in (nn.MLPClassifier, nn.MLPRegressor)
    for method, role in (("fit", "x"), ("predict", "x"), ("fit", "y"))
}
