"""The runs of the files of older versions: `write.py` starts them, `tests/saving/test_older_versions.py` completes
them.

Uses only public names. Do not change this as long as files written with it exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend as nn

try:
    from nnbackend.data.scale import Images as _Images
except ImportError:
    # Older versions scale all uint8, newer ones only images.
    _Images = np.ndarray  # type: ignore[misc, assignment]

__all__ = [
    "CHECKPOINTS",
    "MODELS",
    "SCHEDULES",
    "Shift",
    "arithmetic",
    "data",
    "estimators",
    "figures",
    "fitted_figures",
    "train",
]

#: Of a complete run; those in the files were interrupted earlier.
EPOCHS = 5
#: Number of started epochs when a run is interrupted, and steps between checkpoints of one interrupted within an epoch.
CUT, EVERY = 3, 4

_TIMINGS = ("seconds", "samples_per_second")


def data(rows: int = 70, features: int = 12, classes: int = 4) -> tuple[Any, Any]:
    """Rows of uint8 pixels whose values depend on their class, and labels."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, classes, rows)
    centres = generator.integers(40, 215, (classes, features))
    noise = generator.normal(0, 25, (rows, features))
    return np.clip(centres[labels] + noise, 0, 255).astype(np.uint8).view(_Images), labels


class Shift(nn.Layer):
    """A user-defined layer."""

    def __init__(self, by: float) -> None:
        self.by = by

    def forward(self, step: nn.LayerStep, x: Any) -> tuple[Any, Any]:
        out = step.buffer(x.shape[1])
        step.call(lambda backend, given, shifted: np.add(given, self.by, out=shifted), x, out)
        return out, None

    def backward(self, step: nn.LayerStep, saved: Any, upstream: Any, need_input_gradient: bool) -> Any:
        return upstream

    def config(self) -> dict[str, Any]:
        return {"by": self.by}


class Waves(nn.Schedule):
    """A user-defined schedule with state."""

    def __init__(self, rate: float = 0.02) -> None:
        self.base = rate
        self.start()

    def start(self) -> None:
        self.losses: list[float] = []

    def rate(self, epoch: float) -> float:
        return self.base / (1 + len(self.losses) + epoch)

    def observe(self, logs: Mapping[str, float]) -> None:
        self.losses.append(logs["loss"])

    def state(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.losses = list(state["losses"])


class Norms(nn.Callback):
    """A user-defined callback, whose state is an array and a number."""

    def __init__(self) -> None:
        self.norms = np.zeros(0)

    def on_epoch_end(self, network: nn.Network, epoch: int, figures: Mapping[str, float]) -> None:
        weights = np.concatenate([value.ravel() for value in network.get_weights().values()])
        self.norms = np.append(self.norms, np.abs(weights.astype(np.float64)).sum())

    def state(self, network: nn.Network) -> dict[str, Any]:
        return {"norms": self.norms, "count": len(self.norms)}

    def set_state(self, network: nn.Network, state: Mapping[str, Any]) -> None:
        self.norms = np.array(state["norms"])
        assert len(self.norms) == state["count"]


class Crash(nn.Callback):
    """Ends the run when an epoch begins."""

    def on_epoch_begin(self, network: nn.Network, epoch: int) -> None:
        if epoch == CUT:
            raise RuntimeError("cut off")


def _rich_layers() -> list[nn.Layer]:
    return [
        nn.Dense(11, activation="gelu", l2=1e-3),
        nn.Dropout(0.2),
        nn.MaxAbsNorm(),
        nn.Dense(7, activation="leaky_relu", l1=1e-4, alpha=0.1),
        nn.Dense(4),
    ]


def _image_layers() -> list[nn.Layer]:
    given = np.linspace(-1, 1, 12 * 6).reshape(12, 6)
    return [
        nn.Flatten(),
        nn.Dense(6, use_bias=False, weight_initializer=given),
        nn.Activation("elu", alpha=0.5),
        nn.Dense(5, activation="tanh", weight_initializer=nn.LeCunUniform(), bias_initializer=nn.Uniform(-0.1, 0.1)),
        nn.Dense(4),
    ]


#: Networks with model files, and the options of their `fit`; an untrained one has none.
MODELS: dict[str, tuple[Callable[[Any], nn.Network], dict[str, Any] | None]] = {
    "rich": (lambda backend: nn.Network(_rich_layers(), 12, backend, seed=5), {}),
    "float64": (lambda backend: nn.Network(_rich_layers(), 12, backend, seed=6, dtype="float64"), {}),
    "images": (lambda backend: nn.Network(_image_layers(), (3, 4), backend, seed=7, input_scale=0.01), {}),
    "yes-or-no": (
        lambda backend: nn.Network([nn.Dense(5, activation="silu"), nn.Dense(1)], 12, backend),
        {"loss": "sigmoid_cross_entropy"},
    ),
    "squares": (
        lambda backend: nn.Network([nn.Dense(5, activation="softplus"), nn.Dense(4)], 12, backend),
        {"loss": "mean_squared_error"},
    ),
    "own-layer": (lambda backend: nn.Network([nn.Dense(5), Shift(0.25), nn.Dense(4)], 12, backend), {}),
    "untrained": (lambda backend: nn.Network([nn.Dense(3, activation="softmax")], 12, backend), None),
}

#: Checkpoint folders: the backend, and a function that creates the network, optimiser, callbacks and options of `fit`.
CHECKPOINTS: dict[str, tuple[str, str]] = {
    f"{backend}-{place}": (backend, place) for backend in ("numpy", "numba") for place in ("middle", "end", "own")
}

SCHEDULES: dict[str, Callable[[], Any]] = {
    "constant": lambda: 0.03,
    "step": lambda: nn.StepDecay(0.1, factor=0.3, every=1.5),
    "exponential": lambda: nn.ExponentialDecay(0.1, decay=0.7),
    "cosine": lambda: nn.CosineDecay(0.1, epochs=3, final=0.001),
    "warmup": lambda: nn.Warmup(1.5, nn.CosineDecay(0.1, epochs=2), start=0.05),
    "plateau": lambda: nn.ReduceOnPlateau(0.3, factor=0.5, patience=1, minimum=0.02),
}


def train(name: str, folder: Path, *, cut: bool) -> tuple[nn.Network, nn.History]:
    """Start or resume a run with checkpoints.

    Parameters
    ----------
    name : str
        One of `CHECKPOINTS`.
    folder : Path
        Folder of its checkpoints.
    cut : bool
        Whether to interrupt it with a RuntimeError.
    """
    backend, place = CHECKPOINTS[name]
    x, y = data()
    network = MODELS["float64" if place == "own" else "rich"][0](backend)
    if place == "own":
        optimizer: nn.Optimizer = nn.SGD(Waves(), momentum=0.9)
        callbacks: list[nn.Callback] = [Norms(), nn.KeepBest("loss")]
        options: dict[str, Any] = {"steps_per_epoch": 7}
    else:
        optimizer = nn.Adam(nn.Warmup(0.5, nn.ReduceOnPlateau(0.02, patience=1)))
        callbacks = [nn.EarlyStopping("val_accuracy", patience=4), nn.CSVLogger(folder.parent / "log.csv")]
        options = {"validation_data": (x[:25], y[:25])}
    callbacks.append(nn.Checkpoint(folder, every_steps=None if place == "end" else EVERY, keep=1))
    if cut:
        callbacks.append(Crash())
    settings = {"epochs": EPOCHS, "batch_size": 8, "loss": "softmax_cross_entropy", "verbose": False, **options}
    history = network.fit(x, y, optimizer=optimizer, callbacks=callbacks, resume=True, **settings)
    return network, history


def estimators() -> dict[str, tuple[Any, Any, Any]]:
    """Estimators that are not fitted yet, their rows and their targets."""
    x, y = data(rows=90)
    x = x / 255
    names = np.array(["north", "east", "south", "west"])[y]
    several = np.stack([y > 1, y % 2], axis=1).astype(int)
    common: dict[str, Any] = {"hidden_layer_sizes": (9, 5), "max_iter": 4, "random_state": 3, "backend": "numpy"}
    sgd: dict[str, Any] = {"solver": "sgd", "learning_rate_init": 0.05, **common}
    return {
        "classifier": (nn.MLPClassifier(**common), x, names),
        "classifier-dropout": (nn.MLPClassifier(dropout=0.2, activation="gelu", **common), x, several),
        "classifier-sgd": (nn.MLPClassifier(learning_rate="adaptive", **sgd), x, y > 1),
        "classifier-stopped": (nn.MLPClassifier(early_stopping=True, dtype="float32", **common), x, names),
        "classifier-numba": (nn.MLPClassifier(**{**common, "backend": "numba"}), x, names),
        "regressor": (nn.MLPRegressor(**common), x, x[:, :3].cumsum(axis=1)),
        "regressor-sgd": (nn.MLPRegressor(learning_rate="invscaling", **sgd), x, x.sum(axis=1)),
    }


def fitted_figures(estimator: Any, x: Any, y: Any) -> dict[str, Any]:
    """The predictions of a fitted estimator, now and after another epoch, as plain JSON."""
    predict = getattr(estimator, "predict_proba", estimator.predict)
    kept = {"outputs": predict(x[:9]).tolist(), "predictions": estimator.predict(x[:9]).tolist()}
    kept |= {"loss_curve": list(estimator.loss_curve_), "t": int(estimator.t_)}
    if not estimator.early_stopping:
        estimator.partial_fit(x, y)
        kept["after"] = predict(x[:9]).tolist()
        kept |= {"loss_curve_after": list(estimator.loss_curve_), "t_after": int(estimator.t_)}
    return kept


def figures(network: nn.Network, history: nn.History) -> dict[str, Any]:
    """The results of a run, as plain JSON."""
    return {
        "weights": {name: value.tolist() for name, value in network.get_weights().items()},
        "counts": [network.steps_trained, network.epochs_trained],
        "epochs": [{name: value for name, value in epoch.items() if name not in _TIMINGS} for epoch in history.epochs],
        "step_losses": [losses.tolist() for losses in history.step_losses],
        "stopped_by": history.stopped_by,
    }


def arithmetic() -> str:
    """A checksum of NumPy's arithmetic; if it differs on this processor, results agree only up to rounding."""
    generator = np.random.default_rng(0)
    digest = hashlib.sha256(np.__version__.encode())
    for dtype in (np.float32, np.float64):
        for rows, inner, columns in ((8, 12, 11), (70, 11, 7), (12, 8, 11), (25, 7, 4), (90, 9, 5)):
            left, right = generator.normal(size=(rows, inner)), generator.normal(size=(inner, columns))
            product = left.astype(dtype) @ right.astype(dtype)
            for result in (product, np.exp(product), np.tanh(product), np.log1p(abs(product)), product.sum(axis=0)):
                digest.update(result.tobytes())
    return digest.hexdigest()[:16]
