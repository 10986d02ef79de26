"""Checkpoints: files with the complete state of a run, written so often that little is lost in a crash."""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnbackend.distributed.communicator import Communicator
from nnbackend.errors import InvalidInputError, ModelFileError, NNBackendError
from nnbackend.saving.model_file import CheckpointContents, read_checkpoint, write_checkpoint
from nnbackend.support.checks import above_zero, flag, positive_integer
from nnbackend.support.files import is_file_system_full, path_text
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.checkpoints.folder_lock import FolderLock, LateLock
from nnbackend.training.checkpoints.run_state import RunState
from nnbackend.training.listeners import Listener

__all__ = [
    "Checkpoint",
    "Contributor",
    "Keeper",
    "checkpoint_files",
    "checkpoint_path",
    "checkpoint_steps",
    "clear_checkpoints",
    "newest_checkpoint",
]

_log = logging.getLogger("nnbackend")

_NAME = "checkpoint-{:012d}.safetensors"
#: The folder of one of many runs, from its place among them.
_PART_NAME = "{:05d}"
_PART = re.compile(r"\d{5,}")
_PATTERN = re.compile(r"checkpoint-\d{12,}\.safetensors")


class Checkpoint(Callback):
    """Write the state of a run to files, from which `fit` with ``resume=True`` continues with bit-identical results.

    A file holds weights, optimiser, schedule, history, the position within the epoch and the state of callbacks, with a
    checksum; it is also a model file, which `Network.load` reads. If neither interval is given, a checkpoint is written
    after every epoch. One is always written when training ends, also by Ctrl-C or SIGTERM; with this callback, SIGTERM
    ends the program after the current step, with the exit code 143. With several ranks, only the first writes, and only
    it needs the folder.

    Parameters
    ----------
    folder : str or path-like
        A folder for this run only.
    every_steps : int, optional
        Write whenever the number of steps that the network has taken is a multiple of this.
    every_minutes : float, optional
        Write when this much time has passed since the last checkpoint.
    keep : int
        Number of files to keep, the newest ones.
    any_target : bool
        Whether to resume a run that was compiled for another CPU: on the Numba backend, the bits may then differ from
        those of an uninterrupted run. The environment variable ``NNBACKEND_TARGET`` chooses the CPU to compile for.

    Raises
    ------
    InvalidInputError
        A value out of range; when training begins: the folder holds another run's checkpoints.
    FolderInUseError
        When training begins: another run is writing checkpoints there.
    OSError
        When training begins: the folder cannot be made or written to. Later, a checkpoint that cannot be written
        causes a RuntimeWarning, and training continues.
    """

    first_rank_only = True
    #: Not in `__init__`, so that pickles of older versions have it.
    _accepted_optimizers: tuple[str, ...] = ()
    _locks_late = False
    any_target = False

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 3,
        any_target: bool = False,
    ) -> None:
        self.folder = path_text("folder", folder)
        self.every_steps = None if every_steps is None else positive_integer("every_steps", every_steps)
        self.every_minutes = None if every_minutes is None else above_zero("every_minutes", every_minutes)
        self.keep = positive_integer("keep", keep)
        self.any_target = flag("any_target", any_target)

    def accept_optimizers(self, texts: Sequence[str]) -> None:
        """Also resume runs with optimizers of these settings, as `fingerprint.optimizer_text` has them.

        For runs that get more epochs, if the learning rate depends on their number.
        """
        self._accepted_optimizers = tuple(texts)

    def part(self, place: int) -> Checkpoint:
        """The same for one of many runs that wait for each other, in a folder of this one, which must be locked."""
        folder = os.path.join(self.folder, _PART_NAME.format(place))
        one = Checkpoint(folder, self.every_steps, self.every_minutes, self.keep, self.any_target)
        one._locks_late = True
        return one

    def accepted(self, settings: Mapping[str, Any], saved: CheckpointContents) -> Mapping[str, Any]:
        """The settings of the run, with the optimizer of the checkpoint if that is accepted."""
        was = saved.training.get("settings")
        former = was.get("optimizer") if isinstance(was, dict) else None
        return {**settings, "optimizer": former} if former in self._accepted_optimizers else settings

    def lock(self) -> FolderLock:
        """The lock that a run holds while it writes checkpoints here."""
        if os.path.exists(self.folder) and not os.path.isdir(self.folder):
            raise InvalidInputError(f"Checkpoint writes to a folder, received {self.folder!r}, a file; name another")
        return LateLock(self.folder) if self._locks_late else FolderLock(self.folder)


class Keeper(Listener):
    """Writes the checkpoints of a run, on the first rank, which also decides when to write.

    Parameters
    ----------
    checkpoint : Checkpoint
        When and where.
    state : RunState
        What.
    lock : FolderLock
        Held by the run.
    communicator : Communicator
        The others have a :class:`Contributor`.
    """

    def __init__(self, checkpoint: Checkpoint, state: RunState, lock: FolderLock, communicator: Communicator) -> None:
        self._checkpoint, self._state, self._lock = checkpoint, state, lock
        self._communicator = communicator
        self._last = time.monotonic()

    def allow(self, done: int, steps: int) -> int:
        every = self._checkpoint.every_steps
        return steps if every is None else min(steps, every - self._state.steps(done) % every)

    def reached(self, done: int) -> None:
        # At the end of an epoch it is better to wait for `save_point`, after the evaluation.
        if done < self._state.epoch_steps and self._communicator.broadcast(self._due(done)):
            self.write(done)

    def cut(self, done: int) -> None:
        if done or self._state.begun:
            self.write(done)

    def save_point(self, last: bool) -> None:
        given = self._checkpoint.every_steps, self._checkpoint.every_minutes
        if last or given == (None, None) or self._due(0):
            self.write(0)

    def _due(self, done: int) -> bool:
        every, minutes = self._checkpoint.every_steps, self._checkpoint.every_minutes
        if every is not None and self._state.steps(done) % every == 0:
            return True
        return minutes is not None and time.monotonic() - self._last >= 60 * minutes

    def write(self, done: int) -> None:
        """Write a checkpoint after `done` steps of the current epoch; if that fails, warn and continue."""
        self._last = time.monotonic()
        path = checkpoint_path(self._checkpoint.folder, self._state.steps(done))
        try:
            contents = self._state.contents(done)
        except ModelFileError as error:
            # The run has diverged, and will end with an error. The checkpoints from before that are kept.
            _log.info("no checkpoint after %d steps: %s", self._state.steps(done), error)
            return
        except InvalidInputError as error:
            _warn(error)
            return
        try:
            self._lock.keep()
            self._write(path, contents)
        except (OSError, NNBackendError) as error:
            _warn(error)
            return
        _log.info("checkpoint %s", path)
        self._thin_out(path)

    def _write(self, path: Path, contents: CheckpointContents) -> None:
        try:
            write_checkpoint(path, contents)
        except OSError as error:
            # The newest one is sufficient for resuming; removing the others may free enough space.
            older = checkpoint_files(path.parent)[1:]
            if not is_file_system_full(error) or not older:
                raise
            _remove(older)
            write_checkpoint(path, contents)

    def _thin_out(self, newest: Path) -> None:
        files = checkpoint_files(newest.parent)
        place = files.index(newest) if newest in files else 0
        # Files with higher numbers are damaged; otherwise the run would have resumed from them.
        _remove([*files[:place], *files[place + self._checkpoint.keep :]])


class Contributor(Listener):
    """Sends another rank's part of each checkpoint to the `Keeper` on the first rank.

    Parameters
    ----------
    state : RunState
    communicator : Communicator
    """

    def __init__(self, state: RunState, communicator: Communicator) -> None:
        self._state, self._communicator = state, communicator

    def reached(self, done: int) -> None:
        if done < self._state.epoch_steps and self._communicator.broadcast(False):
            self._state.contribute(done)

    def cut(self, done: int) -> None:
        self._state.contribute(done)


def checkpoint_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a folder, the newest first; none if there is no such folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    files = [Path(folder, name) for name in names if _PATTERN.fullmatch(name)]
    return sorted(files, key=checkpoint_steps, reverse=True)


def checkpoint_path(folder: str | os.PathLike[str], steps: int) -> Path:
    """The name of the checkpoint after this number of steps."""
    return Path(folder, _NAME.format(steps))


def checkpoint_steps(path: Path) -> int:
    """The number of steps the network had taken, from a checkpoint's name."""
    return int(path.stem.rpartition("-")[2])


def parts_of(folder: str | os.PathLike[str]) -> list[Path]:
    """The folders in which many runs keep their checkpoints, or links with such names."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [Path(folder, name) for name in sorted(names) if _PART.fullmatch(name)]
    return [path for path in paths if path.is_symlink() or path.is_dir()]


def clear_checkpoints(folder: str | os.PathLike[str]) -> None:
    """Remove the checkpoints of a run, or of many, and the folder if nothing else is in it.

    Raises
    ------
    FolderInUseError
        The run has not ended.
    """
    if not os.path.isdir(folder):
        return
    with FolderLock(os.fspath(folder)):
        _remove(checkpoint_files(folder))
        for part in parts_of(folder):
            if not part.is_symlink():
                clear_checkpoints(part)
    with suppress(OSError):
        os.rmdir(folder)


def newest_checkpoint(
    folder: str | os.PathLike[str], check: Callable[[Path, CheckpointContents], Any] | None = None
) -> tuple[Path, CheckpointContents] | None:
    """The newest undamaged checkpoint; None if there are no checkpoints. Damaged ones cause a RuntimeWarning.

    Parameters
    ----------
    folder : str or path-like
    check : callable, optional
        Called with the path and the contents of a checkpoint; raises ModelFileError if a run cannot continue from it.

    Raises
    ------
    ModelFileError
        There are checkpoints, and all of them are damaged.
    """
    files = checkpoint_files(folder)
    newest_error = None
    for path in files:
        try:
            contents = read_checkpoint(path)
            if check is not None:
                check(path, contents)
            return path, contents
        except ModelFileError as error:
            newest_error = newest_error or error
            if path != files[-1]:
                warnings.warn(f"{error}; trying the one before", RuntimeWarning, stacklevel=2)
    if newest_error is not None:
        raise ModelFileError(
            f"{os.fspath(folder)}: all of its {len(files)} checkpoints are damaged; the newest: {newest_error}"
        )
    return None


def _warn(error: Exception) -> None:
    warnings.warn(
        f"no checkpoint written: {error}; training continues; the next checkpoint is written when it is due",
        RuntimeWarning,
        stacklevel=3,
    )


def _remove(paths: list[Path]) -> None:
    for path in paths:
        # Training continues if the file was removed by someone else, or the folder has become read-only.
        with suppress(OSError):
            path.unlink()
