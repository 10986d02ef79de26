"""Where a run begins: at its first step, or where a checkpoint of it left off."""

from __future__ import annotations

import json
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
from nnbackend.training.callbacks import Callback
from nnbackend.training.checkpoints.checkpoint import (
    Checkpoint,
    Contributor,
    Keeper,
    checkpoint_files,
    newest_checkpoint,
)
from nnbackend.training.checkpoints.fingerprint import as_text, data_checksum
from nnbackend.training.checkpoints.folder_lock import FolderLock
from nnbackend.training.checkpoints.run_state import RunState, named
from nnbackend.training.run import Watch

__all__ = ["Resume", "Start", "find_start", "run_settings"]

_log = logging.getLogger("nnbackend")

#: Whether to go on from the folder of the callback `Checkpoint`, or which folder to go on from.
Resume = bool | str | os.PathLike[str]


@dataclass(eq=False, repr=False)
class Start:
    """How a run begins, and who watches its steps.

    Attributes
    ----------
    keeps : bool
        Whether the run keeps checkpoints.
    path : Path or None
        The checkpoint that the run goes on from.
    saved : CheckpointContents or None
        What it holds.
    settings : dict
        What `run_settings` says of the run, if it keeps checkpoints.
    checkpoint : Checkpoint or None
        The callback among the run's, on the rank that writes.
    lock : FolderLock or None
        Of its folder, held by that rank.
    """

    keeps: bool = False
    path: Path | None = None
    saved: CheckpointContents | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    lock: FolderLock | None = None

    def restore(self, state: RunState, communicator: Communicator) -> None:
        """Take the run up where the checkpoint has it; raises as `RunState.restore`."""
        if self.saved is None:
            return
        try:
            state.restore(self.saved)
        except ModelFileError as error:
            # All ranks were told the same.
            communicator.alike(error)
            raise
        _log.info("training goes on from %s", self.path)

    def restore_callbacks(self, state: RunState) -> None:
        """Give the callbacks what they remembered."""
        if self.saved is not None:
            state.restore_callbacks(self.saved)

    def watch(self, state: RunState, communicator: Communicator) -> Watch:
        """Who is to look on while the run's steps run."""
        if self.checkpoint is not None and self.lock is not None:
            return Keeper(self.checkpoint, state, self.lock, communicator)
        return Contributor(state, communicator) if self.keeps else Watch()


def find_start(
    resume: Resume,
    callbacks: Sequence[Callback],
    held: ExitStack,
    settings_of: Callable[[], dict[str, Any]],
    checks: Checks,
    shard: bool = False,
) -> Start:
    """Lock the folder that checkpoints go to, and read the one to go on from: the first rank does, and tells all.

    Parameters
    ----------
    resume : bool or path-like
    callbacks : sequence of Callback
        The first rank's decide whether there are checkpoints.
    held : ExitStack
        Given the lock.
    settings_of : callable
        `run_settings` of the run; only called where there are checkpoints to keep or to read.
    checks : Checks
    shard : bool
        Whether each rank has rows of its own.

    Raises
    ------
    InvalidInputError
        There is nothing to go on from, or something that this run would mix with, or it was another run.
    FolderInUseError, ModelFileError, OSError
        As :class:`Checkpoint` and `newest_checkpoint` say.
    """
    found = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    if not checks.exchange(resume is not False or bool(found))[0]:
        return Start()
    settings = settings_of()
    if shard:
        # Whose rows they are decides how the run goes.
        own = checks.exchange({name: settings[name] for name in ("rows", "data")})
        settings |= {name: [rank[name] for rank in own] for name in ("rows", "data")}
    start = _find(resume, callbacks, found, held, settings) if checks.rank == 0 else None
    keeps, path, saved = checks.exchange(start and (start.keeps, start.path, start.saved))[0]
    return start or Start(keeps, path, saved)


def _find(
    resume: Resume,
    callbacks: Sequence[Callback],
    found: Sequence[Checkpoint],
    held: ExitStack,
    settings: Mapping[str, Any],
) -> Start:
    """What `find_start` does on the first rank; `found` are the callbacks that are a Checkpoint."""
    if len(found) > 1:
        raise InvalidInputError(f"a run has one Checkpoint, received {len(found)}; give one folder")
    checkpoint = found[0] if found else None
    if not isinstance(resume, bool | str | os.PathLike):
        raise InvalidInputError(f"resume must be True, False or a folder, received {resume!r}")
    if resume is True and checkpoint is None:
        raise InvalidInputError(
            "resume=True goes on from the folder of a Checkpoint, and there is none among the callbacks; add "
            "nnbackend.Checkpoint(folder), or name the folder: resume=folder"
        )
    lock = None if checkpoint is None else held.enter_context(checkpoint.lock())
    newest = None
    if not isinstance(resume, bool):
        newest = newest_checkpoint(resume)
        if newest is None:
            raise InvalidInputError(
                f"there is no checkpoint in {os.fspath(resume)}; resume takes a Checkpoint's folder"
            )
    elif resume and checkpoint is not None:
        newest = newest_checkpoint(checkpoint.folder)
    if checkpoint is not None and checkpoint_files(checkpoint.folder):
        same = newest is not None and os.path.samefile(newest[0].parent, checkpoint.folder)
        if not same:
            raise InvalidInputError(
                f"{checkpoint.folder} holds checkpoints of a run already; go on with it with resume=True, or choose "
                "another folder"
            )
    if newest is not None:
        _check_same(*newest, settings, callbacks)
    path, saved = newest or (None, None)
    return Start(checkpoint is not None, path, saved, settings, checkpoint, lock)


def run_settings(
    network: Network, data: Any, y: Any, optimizer: Optimizer, loss: str, others: Mapping[str, Any]
) -> dict[str, Any]:
    """All that decides how a run goes, as plain JSON.

    Parameters
    ----------
    data : Rows, or BatchStream
        A sample of their values stands for all of them; a stream's are not looked at.
    y : (n,) labels or (n, outputs) values
    others : dict
        What else was chosen, by the names of `fit`'s parameters.
    """
    config = network.config()
    for count in ("steps_trained", "epochs_trained"):
        del config[count]
    settings = {
        **config,
        "loss": loss,
        "optimizer": as_text(optimizer),
        "rows": len(data),
        "data": data_checksum(data, y),
        **others,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _check_same(
    path: Path, saved: CheckpointContents, settings: Mapping[str, Any], callbacks: Sequence[Callback]
) -> None:
    """Refuse a checkpoint of another run than this one."""
    was, states = saved.training.get("settings"), saved.training.get("callbacks")
    if not isinstance(was, dict) or not isinstance(states, dict):
        raise ModelFileError(f"{path}: its description of the training is damaged")
    missing = states.keys() - {name for name, _ in named(callbacks)}
    if missing:
        kinds = ", ".join(sorted(name.partition(".")[0] for name in missing))
        raise InvalidInputError(f"{path} is of a run that had the callbacks {kinds}; give them again")
    for name, value in settings.items():
        if was.get(name) != value:
            what = f"{name} was {was.get(name)!r} there and is {value!r} here"
            if name == "data":
                what = "its data had other values"
            raise InvalidInputError(
                f"{path} is of another run: {what}. Give what it had; to train on in another way, start from its "
                "weights: Network.load"
            )
