"""Executors of a recorded step: call by call from Python, faster ones, or a mixture of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from nnbackend.backends.arrays import Array, HostArray
from nnbackend.backends.declaration import Call
from nnbackend.backends.operations import Operations

__all__ = ["INFINITE", "NOTHING", "SUSPECT", "Constants", "Division", "Executor", "PlainExecutor", "RunRows",
           "SegmentedExecutor"]  # fmt: skip


#: Called as ``run_rows(rows, scale, results)`` with contiguous and writeable arrays, it runs the step on
#: ``rows * scale``, computed in the step's dtype, which is that of the scalar, and copies its outputs to `results`. It
#: returns 0 or some of these flags.
RunRows = Callable[[HostArray, Any, HostArray], int]

#: The scaled rows hold NaN or infinity, and nothing was computed; the results do; the scaled rows may, if the caller
#: finds any, but the results are what the step computes.
NOTHING, INFINITE, SUSPECT = 1, 2, 4


class Constants:
    """What executors compute from parameters alone, for several recordings with the same parameters.

    Parameters
    ----------
    fixed : bool
        Whether the parameters never change.

    Attributes
    ----------
    values : dict
        By any key of the executors.
    stamp : object
        Says for which parameters they were computed; see the executors.
    """

    def __init__(self, fixed: bool) -> None:
        self.fixed = fixed
        self.values: dict[Any, Any] = {}
        self.stamp: object = None


class Executor(ABC):
    """Runs one recorded step, many times.

    Attributes
    ----------
    name : str
        Short name for ``summary()`` and the log.
    reason : str
        Why this executor was chosen.
    apart : bool
        Whether another thread may run it while other executors of the backend run: it calls no function of the user,
        and shares no memory with them. Such executors run without Python's lock, or there would be no use.
    kind : hashable
        Executors of the same kind, which run the same step for different networks, can run as one; None if it cannot
        run with others.
    """

    name: str
    reason: str
    apart: bool = False
    kind: Hashable = None

    @abstractmethod
    def run(self, repeats: int) -> None:
        """Run the step `repeats` times. May return before the work is done."""

    def run_with(self, others: Sequence[Executor], repeats: int) -> None:
        """Run the step `repeats` times, and those of other executors of its kind.

        Each network has the same results as if its executor ran alone.
        """
        for executor in (self, *others):
            executor.run(repeats)

    def exchange(self, arrays: Sequence[tuple[Array, Array]], seed: int) -> bool:
        """Run the same step for another network from now on.

        Parameters
        ----------
        arrays : sequence of (old, new)
            Whole buffers, of which the step may use views, and their replacements of the same shapes and dtypes.
        seed : int
            The other network's.

        Returns
        -------
        bool
            Whether it can; if not, nothing has changed.
        """
        return False

    def from_rows(self, x: Array, outputs: Array, constants: Constants, slices: int = 0) -> RunRows | None:
        """The step as one call, from rows in the host's memory to results in the host's memory.

        Parameters
        ----------
        x : (rows, features) array
            The buffer of the step that the rows are copied to.
        outputs : (rows, outputs) array
            The buffer with its results.
        constants : Constants
            Belongs to the parameters: what is computed from them alone is kept here.
        slices : int
            If not 0, the call takes any number of rows, in portions that fit into this number of equal parts of the
            buffers.

        Returns
        -------
        callable or None
            See :data:`RunRows`; None if the executor has no faster way than to write `x`, run, and read `outputs`.
        """
        return None


class PlainExecutor(Executor):
    """Calls the operations one by one from Python: the reference, which runs any step on any backend."""

    name = "plain"

    def __init__(self, backend: Operations, calls: Sequence[Call], reason: str = "runs every step") -> None:
        self.reason = reason
        self._bound = [(_bind(backend, call), tuple(call.arguments.values())) for call in calls]

    def run(self, repeats: int) -> None:
        # Overflow is visible in the loss; NumPy's warnings for each operation would add nothing.
        with np.errstate(all="ignore"):
            for _ in range(repeats):
                for operation, arguments in self._bound:
                    operation(*arguments)


def _bind(backend: Operations, call: Call) -> Callable[..., None]:
    if call.function is not None:
        return partial(call.function, backend)
    operation: Callable[..., None] = getattr(backend, call.operation)
    return operation


class Division:
    """A step divided into segments: maximal sequences of calls that a faster executor supports or does not support.

    Parameters
    ----------
    calls : sequence of Call
    refusal : callable
        Takes a call; returns why the faster executor does not support it, or None if it does.
    name, reason : str
        Of the faster executor, if it supports every call of the step.
    recorded : int, optional
        Number of calls in the recorded step, if some have been fused since.

    Attributes
    ----------
    segments : list of Segment
    name, reason : str
        Of the executor for the whole step.
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
        #: Distinct reasons, in order of occurrence.
        why = "; ".join(dict.fromkeys(outside))
        self._suffix = f", {len(outside)} of {recorded or len(calls)} calls from Python"
        if not calls:
            # A network of Flatten and Dropout predicts its inputs.
            self.name, self.reason = PlainExecutor.name, "the step has no calls"
        elif not outside:
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
            Make the executor of a segment from its calls.
        within : context manager, optional
            Entered for each run of a step with several segments.
        """
        if not self.segments:
            return plain([])
        parts = [(fast if segment.known else plain)(segment.calls) for segment in self.segments]
        if len(parts) == 1:
            (only,) = parts
            only.reason = self.reason
            return only
        known = next(part for part, segment in zip(parts, self.segments, strict=True) if segment.known)
        return SegmentedExecutor(parts, known, self._suffix, self.reason, within or nullcontext())


@dataclass(frozen=True)
class Segment:
    """Consecutive calls.

    Attributes
    ----------
    calls : list of Call
    known : bool
        Whether the faster executor supports them.
    """

    calls: list[Call]
    known: bool


class SegmentedExecutor(Executor):
    """Runs the segments of a step in order, in each repeat.

    Parameters
    ----------
    parts : sequence of Executor
        One for each segment. Only the last segment ends with `advance`.
    known : Executor
        The faster one among them, whose name is reported.
    suffix : str
        Appended to its name.
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
        """The name of the faster executor, which may discover late that it cannot run its segment."""
        return self._known.name + ("" if self._known.name == PlainExecutor.name else self._suffix)

    def run(self, repeats: int) -> None:
        with self._within:
            for _ in range(repeats):
                for part in self._parts:
                    part.run(1)
