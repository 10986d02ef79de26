"""Train a network in a background thread and report its progress."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nnbackend.backends.contract import Backend
from nnbackend.backends.registry import get_backend
from nnbackend.datasets import Dataset
from nnbackend.errors import InvalidInputError, NNBackendError
from nnbackend.network import Network
from nnbackend.presets import Recipe, get_preset
from nnbackend.support.checks import above_zero, positive_integer
from nnbackend.training import Callback

__all__ = ["BUSY", "MOST_EPOCHS", "Trainer", "own_backend"]

_log = logging.getLogger("nnbackend")

MOST_EPOCHS = 100

#: The states of an active run.
BUSY = ("preparing", "training", "stopping")

#: Approximate number of steps between two points of the curves, and the longest wait for a stop.
_STEPS = 100


def own_backend(name: str) -> Backend:
    """A new backend instance of the given name.

    Networks on one GPU backend share its stream. If training shared the page's backend, predictions of the page could
    be captured into the graph of the training step.

    Raises
    ------
    UnknownNameError, BackendUnavailableError
    """
    return type(get_backend(name))()


@dataclass
class _Run:
    """A training run: its settings and its progress."""

    number: int
    backend: str
    preset: str
    learning_rate: float
    epochs: int
    state: str = "preparing"
    message: str = "reading the data"
    points: list[dict[str, float | None]] = field(default_factory=list)
    network: Network | None = None
    classes: tuple[str, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event)


class Trainer:
    """Trains one network at a time in a background thread.

    Parameters
    ----------
    load : callable
        Returns the data set; called in that thread.
    make_backend : callable
        Makes a backend from its name; the backend must not be used elsewhere.
    """

    def __init__(self, load: Callable[[], Dataset], make_backend: Callable[[str], Backend] = own_backend) -> None:
        self._load = load
        self._make_backend = make_backend
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._thread: threading.Thread | None = None

    def start(self, settings: Mapping[str, Any]) -> None:
        """Start a run.

        Parameters
        ----------
        settings : mapping
            "backend" and "preset", names; "learning_rate", above 0; "epochs", 1 to `MOST_EPOCHS`.

        Raises
        ------
        InvalidInputError, UnknownNameError
            The settings are invalid, or a run is active; nothing was changed.
        BackendUnavailableError
            The backend cannot run here.
        """
        names = {"backend", "preset", "learning_rate", "epochs"}
        if settings.keys() != names:
            received = ", ".join(sorted(settings)) or "nothing"
            raise InvalidInputError(f"training needs {', '.join(sorted(names))}; received {received}"[:300])
        epochs = positive_integer("epochs", settings["epochs"])
        if epochs > MOST_EPOCHS:
            raise InvalidInputError(f"epochs must be at most {MOST_EPOCHS}, received {epochs}")
        if not isinstance(settings["preset"], str):
            raise InvalidInputError(f"preset must be a name, received {type(settings['preset']).__name__}")
        recipe = get_preset(settings["preset"]).changed(
            learning_rate=above_zero("learning rate", settings["learning_rate"]), epochs=epochs
        )
        recipe.check()
        backend = self._make_backend(settings["backend"])
        with self._lock:
            if self._run is not None and self._run.state in BUSY:
                raise InvalidInputError("a network is already being trained; stop it first")
            number = 1 if self._run is None else self._run.number + 1
            run = _Run(number, backend.name, settings["preset"], recipe.first_rate, epochs)
            self._run = run
            self._thread = threading.Thread(
                target=self._work, args=(run, recipe, backend), name="nnbackend-training", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop the run at the next point of its curves; the network keeps what it has learned."""
        with self._lock:
            if self._run is not None and self._run.state in BUSY:
                self._run.state, self._run.message = "stopping", "stopping"
                self._run.stop.set()

    def close(self, seconds: float = 5.0) -> None:
        """Stop the run and wait for it, for a limited time, because a thread cannot be stopped while it compiles."""
        self.stop()
        if self._thread is not None:
            self._thread.join(seconds)

    def report(self, run: int = 0, since: int = 0) -> dict[str, Any]:
        """The progress of the run, as plain JSON.

        Parameters
        ----------
        run, since : int
            The run and the number of its points that the caller already has.

        Returns
        -------
        dict
            "run" (0 before the first), "state" ("idle", "preparing", "training", "stopping", "finished", "stopped",
            "failed"), "message", and for a run its settings, "first" and "points": the points from index "first" on,
            each with "epoch" (passes over the data), "loss", "accuracy", "val_loss", "val_accuracy", "seconds".
        """
        with self._lock:
            current = self._run
            if current is None:
                return {"run": 0, "state": "idle", "message": "", "first": 0, "points": []}
            first = since if run == current.number else 0
            return {
                "run": current.number,
                "state": current.state,
                "message": current.message,
                "backend": current.backend,
                "preset": current.preset,
                "learning_rate": current.learning_rate,
                "epochs": current.epochs,
                "first": first,
                "points": current.points[first:],
            }

    def trained(self) -> tuple[Network, tuple[str, ...], str]:
        """The network of the last run, its classes, and a description of its training.

        Raises
        ------
        InvalidInputError
            There is no trained network, or it is still being trained.
        """
        with self._lock:
            run = self._run
            if run is None or run.network is None or run.state in BUSY:
                raise InvalidInputError("there is no trained network yet; start a training and wait until it ends")
            last = run.points[-1]
            correct = last.get("val_accuracy")
            accuracy = "unknown" if correct is None else f"{100 * correct:.1f} %"
            source = f"trained on this page for {last['epoch']:.3g} epochs: test accuracy {accuracy}"
            return run.network, run.classes, source

    # ---- in the thread ---------------------------------------------------------------------------------------

    def _work(self, run: _Run, recipe: Recipe, backend: Backend) -> None:
        state, message = "failed", ""
        try:
            self._train(run, recipe, backend)
            state = "stopped" if run.stop.is_set() else "finished"
        except (NNBackendError, OSError, ImportError) as error:
            message = str(error)
        except Exception as error:
            # No other thread waits for this one, so an error that is not reported here would be lost.
            _log.exception("training in the background failed")
            message = f"{type(error).__name__}: {error}"
        with self._lock:
            run.state, run.message = state, message

    def _train(self, run: _Run, recipe: Recipe, backend: Backend) -> None:
        data = self._load()
        if run.stop.is_set():
            return
        self._update(run, "preparing", f"getting {backend.name} ready")
        rows = len(data.x_train)
        batch = min(recipe.batch_size, rows)
        points = max(1, round(rows / batch / _STEPS))
        # Each epoch of `fit` is one point of the curves, a fraction of a pass over the data; the schedule counts these.
        recipe = replace(recipe, epochs=run.epochs * points, batch_size=batch)
        network = Network(recipe.layers(len(data.classes), data.input_shape), data.input_shape, backend, seed=0)
        network.fit(
            data.x_train,
            data.y_train,
            epochs=recipe.epochs,
            batch_size=batch,
            steps_per_epoch=max(1, round(rows / batch / points)),
            loss=recipe.loss,
            optimizer=recipe.make_optimizer(),
            validation_data=(data.x_test, data.y_test),
            callbacks=[_Progress(run, points, self._update)],
            verbose=False,
        )
        with self._lock:
            run.network, run.classes = network, data.classes

    def _update(self, run: _Run, state: str, message: str, point: dict[str, float | None] | None = None) -> None:
        with self._lock:
            if point is not None:
                run.points.append(point)
            if not run.stop.is_set():
                run.state, run.message = state, message


class _Progress(Callback):
    """Adds a point to the curves after every epoch of `fit`, and stops the training on request."""

    def __init__(self, run: _Run, points_per_pass: int, update: Callable[..., None]) -> None:
        self._run, self._points_per_pass, self._update = run, points_per_pass, update
        self._seconds = 0.0

    def on_epoch_end(self, network: Network, epoch: int, metrics: dict[str, float]) -> str | None:
        self._seconds += metrics["seconds"]
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        point: dict[str, float | None] = {
            "epoch": epoch / self._points_per_pass,
            # JSON has no NaN.
            **{name: metrics[name] if math.isfinite(metrics[name]) else None for name in names if name in metrics},
            "seconds": self._seconds,
        }
        self._update(self._run, "training", "", point)
        return "stopped on the page" if self._run.stop.is_set() else None
