"""Every error the package raises on purpose.

Each class also derives from the built-in exception a caller would expect, so ``except ValueError``
keeps working for people who have never heard of this module. A message says what was wrong, what was
received and what to do about it, in that order.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "BackendUnavailableError",
    "DataError",
    "DistributedError",
    "FolderInUseError",
    "InvalidInputError",
    "ModelFileError",
    "NNBackendError",
    "OutOfMemoryError",
    "TrainingDivergedError",
    "UnknownNameError",
]

#: A message repeats no more letters than these of what was received.
_SHOWN = 200


def shown(value: object) -> str:
    """`value` as a message shows it: cut where it is long, and in words where Python cannot write it."""
    try:
        text = repr(value)
    except Exception:
        # Nested too deeply, an integer of thousands of digits, or a class from outside.
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} letters)"


class NNBackendError(Exception):
    """Base class of every error raised by nnbackend."""


class InvalidInputError(NNBackendError, ValueError):
    """An argument has the wrong shape, type or value; nothing was changed."""


class UnknownNameError(InvalidInputError):
    """A name (backend, layer, loss, activation, data set, ...) is not known.

    Parameters
    ----------
    kind : str
        What the name should have been, in words: ``"activation"``.
    received : object
        What was given instead.
    valid : iterable of str
        All names that would have been accepted.
    """

    def __init__(self, kind: str, received: object, valid: Iterable[str]) -> None:
        # Imported here: only a person's typing error needs it.
        import difflib

        names = sorted(valid)
        text = received if isinstance(received, str) else shown(received)
        near = difflib.get_close_matches(text[:_SHOWN].lower(), names, n=3, cutoff=0.5)
        hint = f"did you mean {_either(near)}?" if near else f"valid names are {', '.join(names)}."
        super().__init__(f"unknown {kind} {shown(received)}: {hint}")
        self.kind = kind
        self.received = received
        self.nearest = tuple(near)


class BackendUnavailableError(NNBackendError, RuntimeError):
    """A backend was asked for by name and cannot run on this machine.

    Parameters
    ----------
    name : str
        The backend.
    reason : str
        Why it cannot run here.
    remedy : str
        What to install or change, usually one command.
    """

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"backend {name!r} cannot run here: {reason}. {remedy}")
        self.name = name
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.name, self.reason, self.remedy)


class DataError(NNBackendError, ValueError):
    """A data file is missing, truncated, corrupt or of another kind than expected."""


class ModelFileError(NNBackendError, ValueError):
    """A model file cannot be read as one; nothing was loaded."""


class DistributedError(NNBackendError, RuntimeError):
    """Ranks cannot train together.

    Attributes
    ----------
    rank : int or None
        The one that cannot, if it is one.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank

    def __reduce__(self) -> tuple[type, tuple[str, int | None]]:
        return type(self), (self.args[0], self.rank)


class FolderInUseError(NNBackendError, RuntimeError):
    """Another run keeps its checkpoints in this folder, and is still going on."""


class OutOfMemoryError(NNBackendError, MemoryError):
    """The host or the device has too little memory for what was asked; the message has the sizes."""


class TrainingDivergedError(NNBackendError, FloatingPointError):
    """The loss became NaN or infinite.

    Attributes
    ----------
    epoch, step : int
        Where it happened first, both counted from 1; the step is counted within its epoch.
    """

    def __init__(self, message: str, epoch: int, step: int) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step

    def __reduce__(self) -> tuple[type, tuple[str, int, int]]:
        return type(self), (self.args[0], self.epoch, self.step)


def _either(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
