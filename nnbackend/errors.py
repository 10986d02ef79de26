"""The exception classes of the package.

Each class also derives from the built-in exception that a caller would expect, so ``except ValueError`` works without
this module. A message says what is wrong, what was received and what to do, in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = [
    "BackendUnavailableError",
    "DataError",
    "DistributedError",
    "FolderInUseError",
    "InvalidAttributeError",
    "InvalidInputError",
    "MissingOperationError",
    "ModelFileError",
    "NNBackendError",
    "OutOfMemoryError",
    "TrainingDivergedError",
    "UnknownArgumentError",
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
    """Base class of every error raised by nnbackend.

    Errors of all classes can be pickled with their attributes, so that worker processes can report them.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, unpickling would call the class with the message as its only argument.
        kept = {name: _picklable(value) for name, value in vars(self).items()}
        return _restored, (type(self), *map(_picklable, self.args)), kept


class InvalidInputError(NNBackendError, ValueError):
    """An argument has the wrong shape, type or value; nothing was changed."""


class InvalidAttributeError(InvalidInputError, AttributeError):
    """An attribute was set that does not exist, or that cannot be changed; nothing was changed."""


class MissingOperationError(InvalidInputError):
    """A backend has no such operation.

    Attributes
    ----------
    operation : str
    """

    def __init__(self, backend: str, operation: str) -> None:
        super().__init__(
            f"backend {backend!r} has no operation {operation!r}, which this network needs; use backend='numpy' or "
            "'numba', or add the operation to that backend"
        )
        self.operation = operation


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
        near = [name for name in _other_names(kind, text) if name in names]
        near = near or difflib.get_close_matches(text[:_SHOWN].lower(), names, n=3, cutoff=0.5)
        hint = f"did you mean {_either(near)}?" if near else f"valid names are {', '.join(names)}."
        super().__init__(f"unknown {kind} {shown(received)}: {hint}")
        self.kind = kind
        self.received = received
        self.nearest = tuple(near)


class UnknownArgumentError(UnknownNameError, TypeError):
    """A function or a class has no argument with this name; nothing was changed.

    Parameters
    ----------
    function : str
        Its name.
    received : str
    valid : iterable of str
        The names of its arguments.
    """

    def __init__(self, function: str, received: str, valid: Iterable[str]) -> None:
        super().__init__(f"argument of {function}", received, valid)


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


def _restored(kind: type[NNBackendError], *arguments: object) -> NNBackendError:
    """An error from a pickle, without a call of its class; its attributes are set afterwards."""
    # The class that determines the memory layout; Python rejects the constructor of any other.
    base: type = kind
    while base.__module__ != "builtins":
        assert base.__base__ is not None
        base = base.__base__
    construct: Callable[..., NNBackendError] = base.__new__
    return construct(kind, *arguments)


def _picklable(value: object) -> object:
    """`value`, or its text if it cannot be pickled: it may be whatever a caller gave in place of a name."""
    import pickle

    try:
        pickle.dumps(value)
    except Exception:
        return shown(value)
    return value


#: What other libraries call our backends: devices, or a way of compiling.
_BACKENDS = {
    "gpu": ("cupy",),
    "cuda": ("cupy",),
    "nvidia": ("cupy",),
    "cpu": ("numba", "numpy"),
    "jit": ("numba",),
    "np": ("numpy",),
}

#: What other libraries call our arguments, if the names are not alike.
_ARGUMENTS = {
    "device": ("backend",),
    "input_dim": ("input_shape",),
    "kernel_initializer": ("weight_initializer",),
    "kernel_regularizer": ("l1", "l2"),
    "learning_rate": ("optimizer",),
    "lr": ("learning_rate", "optimizer"),
    "min_delta": ("minimum_change",),
    "nesterovs_momentum": ("nesterov",),
    "out_channels": ("filters",),
    "out_features": ("units",),
    "p": ("rate",),
}


def _other_names(kind: str, text: str) -> tuple[str, ...]:
    if kind.startswith("argument of "):
        return _ARGUMENTS.get(text, ())
    # Devices may have numbers: "cuda:0".
    return _BACKENDS.get(text.lower().partition(":")[0], ()) if kind == "backend" else ()


def _either(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
