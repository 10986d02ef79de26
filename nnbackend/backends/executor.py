"""A recorded step as a backend gets it, and the plain way to run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from nnbackend.backends.declaration import Call
from nnbackend.backends.operations import Operations

__all__ = ["Executor", "PlainExecutor"]


class Executor(ABC):
    """Runs one recorded step, many times.

    Attributes
    ----------
    name : str
        Short name for ``summary()`` and the log.
    reason : str
        Why this executor was chosen.
    """

    name: str
    reason: str

    @abstractmethod
    def run(self, repeats: int) -> None:
        """Run the step `repeats` times, one after the other. May return before the work is done."""


class PlainExecutor(Executor):
    """Calls the operations one by one from Python: the reference, and the way to run any step anywhere."""

    name = "plain"

    def __init__(self, backend: Operations, calls: Sequence[Call], reason: str = "runs every step") -> None:
        self.reason = reason
        self._bound = [(_bind(backend, call), tuple(call.arguments.values())) for call in calls]

    def run(self, repeats: int) -> None:
        # A run that overflows shows it in the loss, once; a warning for each operation would add nothing.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(repeats):
                for operation, arguments in self._bound:
                    operation(*arguments)


def _bind(backend: Operations, call: Call) -> Callable[..., None]:
    if call.function is not None:
        return partial(call.function, backend)
    operation: Callable[..., None] = getattr(backend, call.operation)
    return operation
