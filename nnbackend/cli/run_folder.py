"""The folder of a training run: model, history, configuration, pictures. Files are written completely or not at all.

The folder may come from an untrusted source: nothing in it is opened through a symbolic link, and a name is opened only
if it is a regular file. A process holds the lock of the folder while it changes anything in it.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnbackend.cli.models import Model
from nnbackend.cli.text import printable
from nnbackend.errors import InvalidInputError, shown
from nnbackend.network import Network
from nnbackend.saving.config import steps_count
from nnbackend.saving.model_file import read_checkpoint, write_model
from nnbackend.support.files import atomic_write, check_regular, leftovers, read_small, write_csv
from nnbackend.training import Callback, Checkpoint, CSVLogger, History, ModelCheckpoint
from nnbackend.training.checkpoints.checkpoint import (
    checkpoint_files,
    checkpoint_path,
    checkpoint_steps,
    clear_checkpoints,
    parts_of,
)
from nnbackend.training.checkpoints.folder_lock import FolderLock

__all__ = ["LAST", "MODEL", "RunFolder", "class_names", "dataset_name", "find_model", "read_configuration"]

MODEL = "model.safetensors"
_CONFIGURATION = "config.json"
_HISTORY = "history.json"
_CHECKPOINTS = "checkpoints"
#: The state at the end of a finished run, for more epochs.
LAST = "checkpoint.safetensors"
#: Largest configuration that is read, in bytes; usually it has a few hundred. An epoch in the history has about 200.
_MOST_CONFIGURATION = 1 << 20
_MOST_HISTORY = 64 << 20
#: Most outputs that can be classes.
_MOST_CLASSES = 1 << 20
#: All networks of a search, as a table and as a picture.
_SEARCH, _SEARCH_PICTURE = "search.csv", "search.png"
#: The networks of an ensemble, as a table.
_MEMBERS = "members.csv"
_FILES = (
    MODEL,
    "history.csv",
    _HISTORY,
    "curves.png",
    "confusion.png",
    _SEARCH,
    _SEARCH_PICTURE,
    _MEMBERS,
    LAST,
    _CONFIGURATION,
)


class RunFolder:
    """The folder of a training run. Create one with `at` or `fresh`; everything that changes it needs its `lock`.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: Path, replace: bool = False) -> None:
        self.path = path
        self._replace = replace
        self._configuration: dict[str, Any] = {}

    @classmethod
    def at(cls, path: str, replace: bool) -> RunFolder:
        """The folder the user named.

        Raises
        ------
        InvalidInputError
            It is not a folder, or it holds a run and `replace` is false.
        """
        folder = cls(Path(path).expanduser(), replace)
        if folder.path.exists() and not folder.path.is_dir():
            raise InvalidInputError(f"--out: {path} is a file, not a folder")
        folder._check_free()
        return folder

    @classmethod
    def fresh(cls, dataset: str) -> RunFolder:
        """Create a new folder in ``runs``, named after the data set and the time."""
        name = f"{dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
        path, attempt = Path("runs", name), 1
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            # Created and not only chosen, because another process may choose the same name.
            with suppress(FileExistsError):
                path.mkdir()
                return cls(path)
            attempt += 1
            path = Path("runs", f"{name}-{attempt}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder, which is created if it is missing, and removed at the end if nothing is in it.

        Raises
        ------
        FolderInUseError
            Another process is training there.
        InvalidInputError
            Something in the folder is not what its name says.
        """
        try:
            with FolderLock(str(self.path), use="trains there"):
                self._check_names()
                yield
        finally:
            with suppress(OSError):
                self.path.rmdir()

    def _check_free(self) -> None:
        if not self._replace and self.files():
            raise InvalidInputError(
                f"{self.path} already holds a run; choose another --out, or add --force to replace it"
            )

    def _check_names(self) -> None:
        for name in _FILES:
            path = self.path / name
            try:
                check_regular(path, follow=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InvalidInputError(f"{path} is {error.strerror}; remove it") from error
        for path in (self.checkpoints, *parts_of(self.checkpoints)):
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                raise InvalidInputError(f"{path} is not a folder of its own; remove it")

    @property
    def checkpoints(self) -> Path:
        """Where the run keeps its checkpoints until it finishes."""
        return self.path / _CHECKPOINTS

    def begin(self, configuration: dict[str, Any]) -> None:
        """Remove the run to be replaced, if there is one, and write the configuration.

        Raises
        ------
        InvalidInputError
            It holds a run by now, and that is not to be replaced.
        """
        self._check_free()
        # First, so that what a kill leaves is not mistaken for a finished run.
        self._remove(_HISTORY)
        clear_checkpoints(self.checkpoints)
        for name in self.files():
            # The configuration is replaced, so that every model in the folder has one.
            if name != _CONFIGURATION:
                self._remove(name)
        self.configure(configuration)

    def configure(self, configuration: dict[str, Any], before: dict[str, Any] | None = None) -> None:
        """Write the configuration, unless it has not changed since it was read."""
        self._configuration = configuration
        if configuration != before:
            _write_json(self.path / _CONFIGURATION, configuration)

    def discard_if_empty(self) -> None:
        """Undo `begin` if nothing was saved; otherwise the leftovers would block the next run."""
        if MODEL in self.files() or self.has_checkpoints():
            return
        clear_checkpoints(self.checkpoints)
        for name in self.files():
            self._remove(name)

    def callbacks(
        self, minutes: float, earlier_optimizers: Sequence[str] = (), any_target: bool = False
    ) -> list[Callback]:
        """Callbacks that save the model and history after every epoch, and a checkpoint every `minutes` minutes.

        Parameters
        ----------
        minutes : float
        earlier_optimizers : sequence of str
            As `Checkpoint.accept_optimizers` has it.
        any_target : bool
            As `Checkpoint` has it.
        """
        checkpoint = Checkpoint(self.checkpoints, every_minutes=minutes, keep=2, any_target=any_target)
        checkpoint.accept_optimizers(earlier_optimizers)
        # The folder's name is no pattern, whatever its braces.
        model = str(self.path / MODEL).replace("{", "{{").replace("}", "}}")
        return [
            ModelCheckpoint(model, best_only=False),
            CSVLogger(self.path / "history.csv"),
            checkpoint,
        ]

    def resume(self) -> int:
        """Return the steps in the newest checkpoint, 0 if there is none.

        Raises
        ------
        ModelFileError, InvalidInputError
            The state of the finished run cannot be read.
        """
        last = self.path / LAST
        if not self.has_checkpoints() and self.has_last_state():
            # Training goes on after the end of a shorter run.
            path = checkpoint_path(self.checkpoints, steps_count(read_checkpoint(last).config.get("steps_trained")))
            self.checkpoints.mkdir(exist_ok=True)
            os.replace(last, path)
        files = checkpoint_files(self.checkpoints)
        return checkpoint_steps(files[0]) if files else 0

    def has_checkpoints(self) -> bool:
        """Whether the run has not come to its end."""
        # Not those of another folder, before `lock` has checked that.
        if self.checkpoints.is_symlink():
            return False
        parts = (path for path in parts_of(self.checkpoints) if not path.is_symlink())
        return any(checkpoint_files(path) for path in (self.checkpoints, *parts))

    def has_last_state(self) -> bool:
        """Whether there is the state at the end of a finished run."""
        return os.path.lexists(self.path / LAST)

    def is_tidy(self) -> bool:
        """Whether a finished run has left nothing that `end` would remove."""
        return not os.path.lexists(self.checkpoints) and not leftovers(self.path)

    def end(self) -> None:
        """Remove the checkpoints of the finished run, except for the last one, which moves."""
        files = checkpoint_files(self.checkpoints)
        if files:
            os.replace(files[0], self.path / LAST)
        clear_checkpoints(self.checkpoints)

    def save_model(self, network: Model) -> None:
        """Write the network or the ensemble; also the configuration, if somebody has removed the folder."""
        write_model(self.path / MODEL, network.config(), network.get_weights(), follow=False)
        if self._configuration and not os.path.lexists(self.path / _CONFIGURATION):
            self.configure(self._configuration)

    def save_table(self, history: History) -> None:
        """Write the history as a table."""
        write_csv(self.path / "history.csv", history.epochs, follow=False)

    @property
    def search_picture(self) -> Path:
        """Where the curves of all networks of a search are drawn."""
        return self.path / _SEARCH_PICTURE

    def save_search(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the networks of a search and their scores as a table."""
        write_csv(self.path / _SEARCH, rows, follow=False)

    def is_search(self) -> bool:
        """Whether the run was made by a search."""
        return os.path.lexists(self.path / _SEARCH)

    def save_members(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the networks of an ensemble and their scores as a table."""
        write_csv(self.path / _MEMBERS, rows, follow=False)

    def save_history(self, history: Mapping[str, Any], test: dict[str, float]) -> None:
        """Write the history and the test metrics as JSON: the last file of a run, unless the run was interrupted."""
        _write_json(self.path / _HISTORY, {**history, "test": test})

    def save_pictures(self, curves: Callable[[], Any], matrix: Any, classes: Sequence[str]) -> str:
        """Draw curves and confusion matrix.

        Parameters
        ----------
        curves : callable
            Draws the curves and returns one of their axes.
        matrix : (classes, classes) array
        classes : sequence of str

        Returns
        -------
        str
            Empty, or the reason why there is no picture.
        """
        from nnbackend.plotting import plot_confusion, save_figure

        try:
            save_figure(curves(), self.path / "curves.png")
            save_figure(plot_confusion(matrix, classes), self.path / "confusion.png")
        except ImportError as error:
            return str(error)
        except OSError as error:
            # A full disk must not hide the accuracy.
            return f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return ""

    def files(self) -> list[str]:
        """The files of a run that exist in the folder."""
        return [name for name in _FILES if os.path.lexists(self.path / name)]

    def read_history(self) -> dict[str, Any]:
        """The contents of ``history.json``; empty if there is none.

        Raises
        ------
        InvalidInputError
            It cannot be read.
        """
        return _read_json(self.path / _HISTORY, _MOST_HISTORY)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            (self.path / name).unlink()


def find_model(path: str) -> Path:
    """The model file at `path`, which may also be the folder of its run.

    Raises
    ------
    InvalidInputError
        The model in the folder is not a regular file.
    """
    named = Path(path).expanduser()
    if not named.is_dir():
        return named
    model = named / MODEL
    try:
        check_regular(model, follow=False)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InvalidInputError(f"{model} is {error.strerror}; name the model file itself") from error
    return model


def read_configuration(model: Path) -> dict[str, Any]:
    """The configuration in the model's run folder; empty if there is none.

    Raises
    ------
    InvalidInputError
        It cannot be read.
    """
    if model.name != MODEL:
        return {}
    return _read_json(model.parent / _CONFIGURATION, _MOST_CONFIGURATION)


def _read_json(path: Path, most: int) -> dict[str, Any]:
    try:
        contents = json.loads(read_small(path, most, follow=False))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise InvalidInputError(f"{path} cannot be read: {reason}; restore it, or remove it") from error
    if not isinstance(contents, dict):
        raise InvalidInputError(f"{path} must hold a JSON object, received {shown(contents)}; restore it, or remove it")
    return contents


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
    with atomic_write(path, follow=False) as stream:
        stream.write(json.dumps(contents, indent=1, allow_nan=False).encode() + b"\n")
