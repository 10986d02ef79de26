"""A training that runs in the background while somebody watches."""

from __future__ import annotations

import logging
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

#: The states in which a run is going on.
BUSY = ("preparing", "training", "stopping")

#: Steps between two points of the curves, about: a stop waits for no longer than that.
_STEPS = 100


def own_backend(name: str) -> Backend:
    """A new backend of that kind: networks on one GPU backend share its stream, and what the page asks of its network
    while another network's step is captured into a graph would become part of that graph.

    Raises
    ------
    UnknownNameError, BackendUnavailableError
    """
    return type(get_backend(name))()


@dataclass
class _Run:
    """One training: what was asked for, and how far it is."""

    number: int
    backend: str
    preset: str
    learning_rate: float
    epochs: int
    state: str = "preparing"
    message: str = "reading the data"
    points: list[dict[str, float]] = field(default_factory=list)
    network: Network | None = None
    classes: tuple[str, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event)


class Trainer:
    """Trains one network at a time, in a thread of its own.

    Parameters
    ----------
    load : callable
        Returns the data set; called in that thread.
    make_backend : callable
        From a name to a backend that nobody else uses.
    """

    def __init__(self, load: Callable[[], Dataset], make_backend: Callable[[str], Backend] = own_backend) -> None:
        self._load = load
        self._make_backend = make_backend
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._thread: threading.Thread | None = None

    def start(self, wish: Mapping[str, Any]) -> None:
        """Begin a run.

        Parameters
        ----------
        wish : mapping
            "backend" and "preset", names; "learning_rate", above 0; "epochs", 1 to `MOST_EPOCHS`.

        Raises
        ------
        InvalidInputError, UnknownNameError
            Something is wrong with these, or a run is going on; nothing was changed.
        BackendUnavailableError
            It cannot run here.
        """
        names = {"backend", "preset", "learning_rate", "epochs"}
        if wish.keys() != names:
            received = ", ".join(sorted(wish)) or "nothing"
            raise InvalidInputError(f"a training needs {', '.join(sorted(names))}; received {received}"[:300])
        epochs = positive_integer("epochs", wish["epochs"])
        if epochs > MOST_EPOCHS:
            raise InvalidInputError(f"epochs must be at most {MOST_EPOCHS}, received {epochs}")
        if not isinstance(wish["preset"], str):
            raise InvalidInputError(f"preset must be a name, received {type(wish['preset']).__name__}")
        recipe = get_preset(wish["preset"]).changed(
            learning_rate=above_zero("learning rate", wish["learning_rate"]), epochs=epochs
        )
        recipe.check()
        backend = self._make_backend(wish["backend"])
        with self._lock:
            if self._run is not None and self._run.state in BUSY:
                raise InvalidInputError("a training is going on already; stop it first")
            number = 1 if self._run is None else self._run.number + 1
            run = _Run(number, backend.name, wish["preset"], recipe.first_rate, epochs)
            self._run = run
            self._thread = threading.Thread(
                target=self._work, args=(run, recipe, backend), name="nnbackend-training", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the run after the point of the curves at hand; it keeps what it has learned."""
        with self._lock:
            if self._run is not None and self._run.state in BUSY:
                self._run.state, self._run.message = "stopping", "stopping"
                self._run.stop.set()

    def close(self, seconds: float = 5.0) -> None:
        """End the run and wait for its end, but not for ever: a thread that compiles cannot be stopped."""
        self.stop()
        if self._thread is not None:
            self._thread.join(seconds)

    def report(self, run: int = 0, since: int = 0) -> dict[str, Any]:
        """How far it is, as plain JSON.

        Parameters
        ----------
        run, since : int
            The run and the number of its points that the asker knows already.

        Returns
        -------
        dict
            "run" (0 before the first), "state" ("idle", "preparing", "training", "stopping", "finished", "stopped",
            "failed"), "message", and for a run its settings, "first" and "points": the points from number `first` on,
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
        """The network of the last run, its classes, and how it was trained in words.

        Raises
        ------
        InvalidInputError
            There is none, or it is still being trained.
        """
        with self._lock:
            run = self._run
            if run is None or run.network is None or run.state in BUSY:
                raise InvalidInputError("no training has ended with a network yet; start one, and wait for its end")
            last = run.points[-1]
            source = (
                f"trained on this page, {last['epoch']:.3g} epochs: "
                f"{100 * last['val_accuracy']:.1f} % of the test images right"
            )
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
            # Nobody waits for this thread: what is not told here is never told.
            _log.exception("the training in the background failed")
            message = f"{type(error).__name__}: {error}"
        with self._lock:
            run.state, run.message = state, message

    def _train(self, run: _Run, recipe: Recipe, backend: Backend) -> None:
        data = self._load()
        if run.stop.is_set():
            return
        self._say(run, "preparing", f"getting {backend.name} ready")
        rows = len(data.x_train)
        batch = min(recipe.batch_size, rows)
        looks = max(1, round(rows / batch / _STEPS))
        # The schedule's epochs are those of `fit`, which are parts of a pass over the data here.
        parts = replace(recipe, epochs=run.epochs * looks, batch_size=batch)
        network = Network(parts.layers(len(data.classes)), data.input_shape, backend, seed=0)
        watcher = _Watcher(run, looks, self._say)
        network.fit(
            data.x_train,
            data.y_train,
            epochs=parts.epochs,
            batch_size=batch,
            steps_per_epoch=max(1, round(rows / batch / looks)),
            loss=parts.loss,
            optimizer=parts.make_optimizer(),
            validation_data=(data.x_test, data.y_test),
            callbacks=[watcher],
            verbose=False,
        )
        with self._lock:
            run.network, run.classes = network, data.classes

    def _say(self, run: _Run, state: str, message: str, point: dict[str, float] | None = None) -> None:
        with self._lock:
            if point is not None:
                run.points.append(point)
            if not run.stop.is_set():
                run.state, run.message = state, message


class _Watcher(Callback):
    """Notes a point of the curves, and hears whether to stop."""

    def __init__(self, run: _Run, looks: int, say: Callable[..., None]) -> None:
        self._run, self._looks, self._say = run, looks, say
        self._seconds = 0.0

    def on_epoch_end(self, network: Network, epoch: int, metrics: Mapping[str, float]) -> str | None:
        self._seconds += metrics["seconds"]
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        point = {
            "epoch": epoch / self._looks,
            **{name: metrics[name] for name in names if name in metrics},
            "seconds": self._seconds,
        }
        self._say(self._run, "training", "", point)
        return "stopped on the page" if self._run.stop.is_set() else None
