"""Checksums of results, down to the last bit, and the table of configurations."""

from __future__ import annotations

import hashlib
import struct
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import nnbackend as nn

__all__ = ["CONFIGURATIONS", "Outcome", "checksum", "configuration", "run"]

#: Metrics of a history that depend on time.
_TIMINGS = ("seconds", "samples_per_second")
_LETTERS = 16


class Outcome:
    """Collects the results of one configuration, part by part."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Any]] = {}

    def add(self, part: str, value: Any) -> None:
        """Add a result: an array, a number, a text, or lists and dictionaries of them."""
        self._parts.setdefault(part, []).append(value)

    def network(self, network: nn.Network) -> None:
        """Add the weights of a network and its counts of steps and epochs."""
        self.add("weights", network.get_weights())
        self.add("weights", [network.steps_trained, network.epochs_trained])

    def history(self, history: nn.History) -> None:
        """Add the parts of a history that do not depend on time."""
        for epoch in history.epochs:
            self.add("history", {name: float(value) for name, value in epoch.items() if name not in _TIMINGS})
        self.add("history", list(history.step_losses))
        self.add("history", [bool(history.interrupted), str(history.stopped_by)])

    def run(self, network: nn.Network, history: nn.History) -> None:
        """Add the results of a training run."""
        self.network(network)
        self.history(history)

    def checksums(self) -> dict[str, str]:
        """One checksum for each part."""
        return {part: checksum(values) for part, values in sorted(self._parts.items())}


def checksum(value: Any) -> str:
    """The beginning of the SHA-256 of a value, including its type and shape."""
    digest = hashlib.sha256()
    for piece in _pieces(value):
        digest.update(piece)
    return digest.hexdigest()[:_LETTERS]


def _pieces(value: Any) -> Iterable[bytes]:
    if isinstance(value, np.ndarray):
        yield f"array {value.dtype.str} {value.shape}\n".encode()
        # Arrays of objects contain strings.
        yield repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}\n".encode()
        for name in sorted(value):
            yield f"{name}\n".encode()
            yield from _pieces(value[name])
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)}\n".encode()
        for item in value:
            yield from _pieces(item)
    elif isinstance(value, bool | np.bool_ | int | np.integer):
        yield f"integer {int(value)}\n".encode()
    elif isinstance(value, float | np.floating):
        yield b"real" + struct.pack("<d", float(value))
    elif isinstance(value, str):
        yield f"text {value}\n".encode()
    elif isinstance(value, bytes):
        yield b"bytes " + value
    elif value is None:
        yield b"nothing\n"
    else:
        raise TypeError(f"no checksum of a {type(value).__name__}")


#: All configurations by name, in the order in which they run.
CONFIGURATIONS: dict[str, Callable[[Outcome], None]] = {}


def configuration(name: str, /, *arguments: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function ``program(outcome, *arguments)`` as a configuration; may be applied several times to one
    function."""

    def register(program: Callable[..., None]) -> Callable[..., None]:
        if name in CONFIGURATIONS:
            raise ValueError(f"there are two configurations with the name {name!r}")
        CONFIGURATIONS[name] = lambda outcome: program(outcome, *arguments)
        return program

    return register


def run(name: str) -> dict[str, str]:
    """The checksums of one configuration by part, or its error.

    Parameters
    ----------
    name : str

    Returns
    -------
    dict
        A checksum for each part. A configuration that fails has the single part "error", with the message.
    """
    outcome = Outcome()
    try:
        CONFIGURATIONS[name](outcome)
        return outcome.checksums()
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return {"error": f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"}
