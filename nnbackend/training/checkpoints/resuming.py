"""Determines where a run starts: at its first step, or at a checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnbackend.distributed.communicator import Checks, Communicator
from nnbackend.errors import InvalidInputError, ModelFileError
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.saving.model_file import CheckpointContents
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.checkpoints.checkpoint import (
    Checkpoint,
    Contributor,
    Keeper,
    checkpoint_files,
    newest_checkpoint,
)
from nnbackend.training.checkpoints.fingerprint import check_same_run, check_same_target
from nnbackend.training.checkpoints.folder_lock import FolderLock
from nnbackend.training.checkpoints.run_state import RunState, SavedRun, check_states, named
from nnbackend.training.listeners import Listener

__all__ = ["Resume", "Start", "find_start"]

_log = logging.getLogger("nnbackend")

#: Whether to resume from the folder of the callback `Checkpoint`, or which folder to resume from.
Resume = bool | str | os.PathLike[str]


@dataclass(eq=False, repr=False)
class Start:
    """Where a run starts, and how it writes checkpoints.

    Attributes
    ----------
    keeps : bool
        Whether the run writes checkpoints.
    path : Path or None
        The checkpoint to resume from.
    saved : CheckpointContents or None
        Its contents.
    settings : dict
        `run_settings` of the run, if it writes checkpoints.
    checkpoint : Checkpoint or None
        The run's `Checkpoint` callback, on the rank that writes.
    lock : FolderLock or None
        The lock of its folder, held by that rank.
    """

    keeps: bool = False
    path: Path | None = None
    saved: CheckpointContents | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    lock: FolderLock | None = None

    def restore(self, state: RunState, communicator: Communicator) -> None:
        """Restore the run from the checkpoint, if there is one; raises the errors of `RunState.restore`."""
        if self.saved is None:
            return
        try:
            state.restore(self.saved)
        except ModelFileError as error:
            # All ranks received the same checkpoint.
            communicator.alike(error)
            raise
        _log.info("resuming from %s", self.path)

    def restore_callbacks(self, state: RunState) -> None:
        """Restore the state of the callbacks, if there is a checkpoint."""
        if self.saved is not None:
            state.restore_callbacks(self.saved)

    def check_callbacks(self, state: RunState) -> None:
        """Reject callbacks whose state a checkpoint cannot hold; called after `on_train_begin`.

        Raises
        ------
        InvalidInputError
        """
        if self.checkpoint is not None:
            state.check_callbacks()

    def listener(self, state: RunState, communicator: Communicator) -> Listener:
        """The listener that writes the run's checkpoints, or sends this rank's part of them."""
        if self.checkpoint is not None and self.lock is not None:
            return Keeper(self.checkpoint, state, self.lock, communicator)
        return Contributor(state, communicator) if self.keeps else Listener()


def find_start(
    network: Network,
    optimizer: Optimizer,
    resume: Resume,
    callbacks: Sequence[Callback],
    held: ExitStack,
    settings_of: Callable[[], dict[str, Any]],
    checks: Checks,
    shard: bool = False,
) -> Start:
    """Lock the checkpoint folder and read the checkpoint to resume from, on the first rank, which informs the others.

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
    resume : bool or path-like
    callbacks : sequence of Callback
        The first rank's callbacks decide whether there are checkpoints.
    held : ExitStack
        Receives the lock.
    settings_of : callable
        Returns `run_settings` of the run; called only if checkpoints are written or read.
    checks : Checks
    shard : bool
        Whether each rank has its own rows.

    Raises
    ------
    InvalidInputError
        There is no checkpoint to resume from, or it is of another run, or the folder holds another run's.
    FolderInUseError, ModelFileError, OSError
        As :class:`Checkpoint` and `newest_checkpoint` say.
    """
    found = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    if not checks.exchange(resume is not False or bool(found))[0]:
        return Start()
    settings = settings_of()
    if shard:
        # The run depends on which rank has which rows.
        names = ("rows", "data", "hashes")
        own = checks.exchange({name: settings[name] for name in names})
        settings |= {name: [rank[name] for rank in own] for name in names}
    start = None
    if checks.rank == 0:

        def check(path: Path, saved: CheckpointContents) -> None:
            own = found[0].accepted(settings, saved) if found else settings
            check_same_run(path, saved, own, {name for name, _ in named(callbacks)})
            if not (found and found[0].any_target):
                check_same_target(path, saved, network.backend)
            try:
                SavedRun.of(saved, network.model, optimizer.slots)
            except ModelFileError as error:
                raise ModelFileError(f"{path}: {error}") from error

        check_states(network, callbacks if found else ())
        start = _find(resume, found, held, settings, check)
    keeps, path, saved = checks.exchange(start and (start.keeps, start.path, start.saved))[0]
    return start or Start(keeps, path, saved)


def _find(
    resume: Resume,
    found: Sequence[Checkpoint],
    held: ExitStack,
    settings: Mapping[str, Any],
    check: Callable[[Path, CheckpointContents], None],
) -> Start:
    """`find_start` on the first rank; `found` are the callbacks that are a Checkpoint, and `check` rejects checkpoints
    from which this run cannot continue."""
    if len(found) > 1:
        raise InvalidInputError(f"a run has one Checkpoint, received {len(found)}; give one folder")
    checkpoint = found[0] if found else None
    if not isinstance(resume, bool | str | os.PathLike):
        raise InvalidInputError(f"resume must be True, False or a folder, received {resume!r}")
    if resume is True and checkpoint is None:
        raise InvalidInputError(
            "resume=True needs a Checkpoint among the callbacks, whose folder it resumes from; add "
            "nnbackend.Checkpoint(folder), or name the folder: resume=folder"
        )
    lock = None if checkpoint is None else held.enter_context(checkpoint.lock())
    newest = None
    if not isinstance(resume, bool):
        newest = newest_checkpoint(resume, check)
        if newest is None:
            raise InvalidInputError(
                f"there is no checkpoint in {os.fspath(resume)}; resume takes a Checkpoint's folder"
            )
    elif resume and checkpoint is not None:
        newest = newest_checkpoint(checkpoint.folder, check)
    if checkpoint is not None and checkpoint_files(checkpoint.folder):
        same = newest is not None and os.path.samefile(newest[0].parent, checkpoint.folder)
        if not same:
            raise InvalidInputError(
                f"{checkpoint.folder} already contains the checkpoints of a run; resume it with resume=True, or choose "
                "another folder"
            )
    path, saved = newest or (None, None)
    return Start(checkpoint is not None, path, saved, settings, checkpoint, lock)
