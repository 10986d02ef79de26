"""The exception classes of the package.

Each class also derives from the built-in exception that a caller would expect, so ``except ValueError`` works without
this module. A message says what is wrong, what was received and what to do, in that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = [
    "BackendUnavailableError",
    "DataError",
    "DistributedError",
    "FolderInUseError",
    "InvalidAttributeError",
    "InvalidInputError",
    "ModelFileError",
    "NNBackendError",
    "OutOfMemoryError",
    "TrainingDivergedError",
    "UnknownNameError",
]

#: Maximum number of characters of a received value that a message quotes.
_SHOWN = 200


def shown(value: object) -> str:
    """`value` as text for a message: truncated if it is long, and only its type if its repr fails."""
    try:
        text = repr(value)
    except Exception:
        # Nested too deeply, an integer of thousands of digits, or a class with a broken repr.
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()


def differing(name: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """The entries in which two plain values differ: for each its place, such as ``layers[0].units``, and the two."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            yield from differing(f"{name}.{key}", one.get(key, _MISSING), other.get(key, _MISSING))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differing(f"{name}[{index}]", *pair)
    elif one != other:
        yield name, one, other


class NNBackendError(Exception):
    """Base class of every error raised by nnbackend."""


class InvalidInputError(NNBackendError, ValueError):
    """An argument has the wrong shape, type or value; nothing was changed."""


class InvalidAttributeError(InvalidInputError, AttributeError):
    """An attribute was set that does not exist, or that cannot be changed; nothing was changed."""


class UnknownNameError(InvalidInputError):
    """A name (of a backend, layer, loss, activation, data set, ...) is unknown.

    Parameters
    ----------
    kind : str
        What the name should denote, such as ``"activation"``.
    received : object
        The value that was given.
    valid : iterable of str
        All valid names.
    """

    def __init__(self, kind: str, received: object, valid: Iterable[str]) -> None:
        # Imported here because only this error needs it.
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
    """A backend that was requested by name cannot run on this machine.

    Parameters
    ----------
    name : str
        The backend.
    reason : str
        Why it cannot run.
    remedy : str
        What to install or change, usually a command.
    """

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"backend {name!r} cannot run here: {reason}. {remedy}")
        self.name = name
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.name, self.reason, self.remedy)


class DataError(NNBackendError, ValueError):
    """A data file is missing, truncated, corrupt or of an unexpected kind."""


class ModelFileError(NNBackendError, ValueError):
    """A model file cannot be read; nothing was loaded."""


class DistributedError(NNBackendError, RuntimeError):
    """Ranks cannot train together.

    Attributes
    ----------
    rank : int or None
        The rank that failed, if it is a single one.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank

    def __reduce__(self) -> tuple[type, tuple[str, int | None]]:
        return type(self), (self.args[0], self.rank)


class FolderInUseError(NNBackendError, RuntimeError):
    """Another run that is still active uses this folder for its checkpoints."""


class OutOfMemoryError(NNBackendError, MemoryError):
    """The host or the device does not have enough memory; the message lists the required sizes."""


class TrainingDivergedError(NNBackendError, FloatingPointError):
    """The loss became NaN or infinite.

    Attributes
    ----------
    epoch, step : int
        Where it happened first, both counted from 1; steps are counted within the epoch.
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
