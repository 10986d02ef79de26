"""How a recorded step is run: call by call from Python, by something faster, or by both in turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np

from nnbackend.backends.declaration import Call
from nnbackend.backends.operations import Operations

__all__ = ["Division", "Executor", "PlainExecutor", "SegmentedExecutor"]


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
    """Calls the operations one by one from Python: the reference, which runs any step on any backend."""

    name = "plain"

    def __init__(self, backend: Operations, calls: Sequence[Call], reason: str = "runs every step") -> None:
        self.reason = reason
        self._bound = [(_bind(backend, call), tuple(call.arguments.values())) for call in calls]

    def run(self, repeats: int) -> None:
        # An overflow shows in the loss, once. A warning for each operation would add nothing.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(repeats):
                for operation, arguments in self._bound:
                    operation(*arguments)


def _bind(backend: Operations, call: Call) -> Callable[..., None]:
    if call.function is not None:
        return partial(call.function, backend)
    operation: Callable[..., None] = getattr(backend, call.operation)
    return operation


class Division:
    """A step divided into segments: as many calls as possible in a row that a faster executor knows, or does not know.

    Parameters
    ----------
    calls : sequence of Call
    refusal : callable
        From a call: why the faster executor does not know it; None if it does.
    name, reason : str
        Of the faster executor, for a step of which it knows every call.
    recorded : int, optional
        Calls of the step as it was recorded, if they have been joined since.

    Attributes
    ----------
    segments : list of Segment
    name, reason : str
        Of the executor that the whole step needs.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        refusal: Callable[[Call], str | None],
        name: str,
        reason: str,
        recorded: int | None = None,
    ) -> None:
        judged = [(call, refusal(call)) for call in calls]
        self.segments = [
            Segment([call for call, _ in group], known)
            for known, group in groupby(judged, key=lambda pair: pair[1] is None)
        ]
        outside = [why for _, why in judged if why is not None]
        #: In the order in which they occur, each once.
        why = "; ".join(dict.fromkeys(outside))
        self._suffix = f", {len(outside)} of {recorded or len(calls)} calls from Python"
        if not outside:
            self.name, self.reason = name, reason
        elif len(outside) == len(calls):
            self.name, self.reason = PlainExecutor.name, why
        else:
            self.name, self.reason = f"{name}{self._suffix}", why

    def executor(
        self,
        fast: Callable[[Sequence[Call]], Executor],
        plain: Callable[[Sequence[Call]], Executor],
        within: AbstractContextManager[object] | None = None,
    ) -> Executor:
        """The executor of the whole step.

        Parameters
        ----------
        fast, plain : callable
            Make the executors of segments, from their calls.
        within : context manager, optional
            Entered for each run of a step that has several segments.
        """
        parts = [(fast if segment.known else plain)(segment.calls) for segment in self.segments]
        if len(parts) == 1:
            (only,) = parts
            only.reason = self.reason
            return only
        known = next(part for part, segment in zip(parts, self.segments, strict=True) if segment.known)
        return SegmentedExecutor(parts, known, self._suffix, self.reason, within or nullcontext())


@dataclass(frozen=True)
class Segment:
    """Calls in a row.

    Attributes
    ----------
    calls : list of Call
    known : bool
        Whether the faster executor knows them.
    """

    calls: list[Call]
    known: bool


class SegmentedExecutor(Executor):
    """Runs the segments of a step in order, for each repeat.

    Parameters
    ----------
    parts : sequence of Executor
        One for each segment. Only the last one's calls end with `advance`.
    known : Executor
        The faster one among them, which the name is about.
    suffix : str
        Behind its name.
    reason : str
    within : context manager
        Entered for each run.
    """

    def __init__(
        self,
        parts: Sequence[Executor],
        known: Executor,
        suffix: str,
        reason: str,
        within: AbstractContextManager[object],
    ) -> None:
        self.reason = reason
        self._parts = parts
        self._known = known
        self._suffix = suffix
        self._within = within

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the faster executor, which may find out late that it cannot run its segment."""
        return self._known.name + ("" if self._known.name == PlainExecutor.name else self._suffix)

    def run(self, repeats: int) -> None:
        with self._within:
            for _ in range(repeats):
                for part in self._parts:
                    part.run(1)
