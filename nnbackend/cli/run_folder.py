"""The folder of a training run: model, history, configuration, pictures. Files are written completely or not at all."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnbackend.cli.text import printable
from nnbackend.errors import InvalidInputError, shown
from nnbackend.network import Network
from nnbackend.support.files import atomic_write, read_small, remove_leftovers
from nnbackend.training import Callback, Checkpoint, CSVLogger, History, ModelCheckpoint
from nnbackend.training.checkpoints.checkpoint import checkpoint_files, checkpoint_steps, clear_checkpoints

__all__ = ["MODEL", "RunFolder", "class_names", "dataset_name", "find_model", "read_configuration"]

MODEL = "model.safetensors"
_CONFIGURATION = "config.json"
_CHECKPOINTS = "checkpoints"
#: Largest configuration that is read, in bytes; usually it has a few hundred.
_MOST_CONFIGURATION = 1 << 20
#: Most outputs that can be classes.
_MOST_CLASSES = 1 << 20
_FILES = (MODEL, "history.csv", "history.json", _CONFIGURATION, "curves.png", "confusion.png")


class RunFolder:
    """The folder of a training run. Create one with `at` or `fresh`; nothing is written before `begin`.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def at(cls, path: str, replace: bool) -> RunFolder:
        """The folder the user named.

        Raises
        ------
        InvalidInputError
            It is not a folder, or it holds a run and `replace` is false.
        """
        folder = cls(Path(path).expanduser())
        if folder.path.exists() and not folder.path.is_dir():
            raise InvalidInputError(f"--out: {path} is a file, not a folder")
        if folder.files() and not replace:
            raise InvalidInputError(f"{path} already holds a run; choose another --out, or add --force to replace it")
        return folder

    @classmethod
    def fresh(cls, dataset: str) -> RunFolder:
        """A new folder in ``runs``, named after the data set and the time."""
        name = f"{dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
        path, attempt = Path("runs", name), 1
        while path.exists():
            attempt += 1
            path = Path("runs", f"{name}-{attempt}")
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        """Where the run keeps its checkpoints until it finishes."""
        return self.path / _CHECKPOINTS

    def begin(self, configuration: dict[str, Any]) -> None:
        """Create the folder and write the configuration, so that a read-only folder fails now and not after hours."""
        self.path.mkdir(parents=True, exist_ok=True)
        # First, because it raises if the run to be replaced is still training.
        clear_checkpoints(self.checkpoints)
        _write_json(self.path / _CONFIGURATION, configuration)
        for name in self.files():
            # Remove the files of the replaced run, so that they are not mistaken for this run's.
            if name != _CONFIGURATION:
                (self.path / name).unlink()

    def discard_if_empty(self) -> None:
        """Undo `begin` if nothing was saved; otherwise the leftovers would block the next run."""
        if (self.path / MODEL).exists() or checkpoint_files(self.checkpoints):
            return
        clear_checkpoints(self.checkpoints)
        for name in self.files():
            (self.path / name).unlink()
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def callbacks(self, minutes: float) -> list[Callback]:
        """Callbacks that save the model and history after every epoch, and a checkpoint every `minutes` minutes."""
        return [
            ModelCheckpoint(self.path / MODEL, best_only=False),
            CSVLogger(self.path / "history.csv"),
            Checkpoint(self.checkpoints, every_minutes=minutes, keep=2),
        ]

    def resume(self) -> int:
        """Clean up after the interrupted run and return the steps in its newest checkpoint, 0 if there is none."""
        remove_leftovers(self.path)
        files = checkpoint_files(self.checkpoints)
        return checkpoint_steps(files[0]) if files else 0

    def end(self) -> None:
        """Remove the checkpoints of the finished run."""
        clear_checkpoints(self.checkpoints)

    def save_model(self, network: Network) -> None:
        """Write the current network."""
        network.save(self.path / MODEL)

    def save_history(self, history: History, test: dict[str, float]) -> None:
        """Write the history as a table and, with the test metrics, as JSON."""
        history.to_csv(self.path / "history.csv")
        _write_json(self.path / "history.json", {**history.to_dict(), "test": test})

    def save_pictures(self, history: History, matrix: Any, classes: Sequence[str]) -> str:
        """Draw curves and confusion matrix. Return an empty string, or the reason if matplotlib is missing."""
        from nnbackend.plotting import plot_confusion, plot_curves, save_figure

        try:
            curves = plot_curves(history)
        except ImportError as error:
            return str(error)
        save_figure(curves[0], self.path / "curves.png")
        save_figure(plot_confusion(matrix, classes), self.path / "confusion.png")
        return ""

    def files(self) -> list[str]:
        """The files of a run that exist in the folder."""
        return [name for name in _FILES if (self.path / name).exists()]


def find_model(path: str) -> Path:
    """The model file at `path`, which may also be the folder of its run."""
    named = Path(path).expanduser()
    return named / MODEL if named.is_dir() else named


def read_configuration(model: Path) -> dict[str, Any]:
    """The configuration in the model's run folder; empty if there is none."""
    try:
        configuration = json.loads(read_small(model.parent / _CONFIGURATION, _MOST_CONFIGURATION))
    except (OSError, ValueError, RecursionError):
        return {}
    return configuration if model.name == MODEL and isinstance(configuration, dict) else {}


def dataset_name(model: Path) -> str:
    """The data set that a model was trained on, according to its run folder; "auto" if that does not say.

    Raises
    ------
    InvalidInputError
        The configuration's data set is not a string.
    """
    name = read_configuration(model).get("dataset", "auto")
    if not isinstance(name, str):
        raise InvalidInputError(f"{model.parent / _CONFIGURATION}: the data set must be a name, received {shown(name)}")
    return name


def class_names(model: Path, network: Network) -> list[str]:
    """The names of a model's classes from its run folder, or numbers.

    Raises
    ------
    InvalidInputError
        The model has too many outputs to be classes; a small malicious file can declare any number.
    """
    outputs = math.prod(network.output_shape)
    if outputs > _MOST_CLASSES:
        raise InvalidInputError(f"{model} has {outputs:,} outputs, and at most {_MOST_CLASSES:,} can be classes")
    count = max(outputs, 2)  # a single output distinguishes two classes
    given = read_configuration(model).get("classes")
    if isinstance(given, list) and len(given) == count and all(isinstance(name, str) for name in given):
        return [printable(name) for name in given]
    return [str(number) for number in range(count)]


def _write_json(path: Path, contents: dict[str, Any]) -> None:
    with atomic_write(path) as stream:
        stream.write(json.dumps(contents, indent=1, allow_nan=False).encode() + b"\n")
