"""Listeners of a training run, which the loop notifies of events.

User callbacks, signals, progress, checks between ranks and checkpoints are listeners, which keeps the loop in
:mod:`nnbackend.training.fit` simple.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np

from nnbackend.distributed.communicator import Communicator
from nnbackend.errors import InvalidInputError, shown
from nnbackend.network import Network
from nnbackend.step.replay import Watch
from nnbackend.support.surroundings import callers_error_state
from nnbackend.training.callbacks.base import Callback
from nnbackend.training.history import History
from nnbackend.training.interrupt import Interrupt
from nnbackend.training.run import EpochResult

__all__ = ["CallbackListener", "Listener", "Listeners", "SignalListener"]


#: Integers up to this size fit into a float.
_MOST_BITS = 1023


class Listener(Watch):
    """Base class of listeners, which also watch the steps; its methods do nothing.

    As a context manager, it is entered before the first epoch and exited after the last one, even after an error.
    """

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def epoch_begin(self, epoch: int) -> None:
        """Epoch `epoch` (from 1) begins."""

    def steps_end(self, epoch: int, result: EpochResult) -> None:
        """The steps of the epoch have run, and the weights are finite."""

    def epoch_end(self, epoch: int, result: EpochResult, metrics: dict[str, float]) -> None:
        """The epoch was evaluated and is in the history."""

    def save_point(self, last: bool) -> None:
        """All listeners have been notified of the end of a complete epoch; `last` is whether the run ends here."""

    def epochs_end(self, epoch: int) -> None:
        """There are no more epochs; `epoch` was the last one to begin."""


class Listeners(Listener):
    """Several listeners, notified in order.

    Parameters
    ----------
    listeners : sequence of Listener
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._entered = ExitStack()

    def __enter__(self) -> Listeners:
        with ExitStack() as entered:
            for listener in self._listeners:
                entered.enter_context(listener)
            self._entered = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.__exit__(kind, error, trace)

    def allow(self, done: int, steps: int) -> int:
        for listener in self._listeners:
            steps = min(steps, listener.allow(done, steps)) if steps else 0
        return steps

    def advanced(self, done: int) -> None:
        for listener in self._listeners:
            listener.advanced(done)

    def reached(self, done: int) -> None:
        for listener in self._listeners:
            listener.reached(done)

    def epoch_begin(self, epoch: int) -> None:
        for listener in self._listeners:
            listener.epoch_begin(epoch)

    def cut(self, done: int) -> None:
        for listener in self._listeners:
            listener.cut(done)

    def steps_end(self, epoch: int, result: EpochResult) -> None:
        for listener in self._listeners:
            listener.steps_end(epoch, result)

    def epoch_end(self, epoch: int, result: EpochResult, metrics: dict[str, float]) -> None:
        for listener in self._listeners:
            listener.epoch_end(epoch, result, metrics)

    def save_point(self, last: bool) -> None:
        for listener in self._listeners:
            listener.save_point(last)

    def epochs_end(self, epoch: int) -> None:
        for listener in self._listeners:
            listener.epochs_end(epoch)


class CallbackListener(Listener):
    """Calls the user's callbacks, and notes in the history which one asked to stop.

    Parameters
    ----------
    network : Network
    callbacks : sequence of Callback
        Those that this rank calls.
    history : History
    communicator : Communicator
        If a callback on one rank asks to stop, all ranks stop.
    note : callable
        Prints a line.
    """

    def __init__(
        self,
        network: Network,
        callbacks: Sequence[Callback],
        history: History,
        communicator: Communicator,
        note: Callable[[str], None],
    ) -> None:
        self._network, self._callbacks, self._history = network, callbacks, history
        self._communicator, self._note = communicator, note
        self._reason = ""

    def epoch_begin(self, epoch: int) -> None:
        if not self._callbacks:
            return
        with callers_error_state():
            for callback in self._callbacks:
                callback.on_epoch_begin(self._network, epoch)

    def epoch_end(self, epoch: int, result: EpochResult, metrics: dict[str, float]) -> None:
        if not self._callbacks and self._communicator.size == 1:
            return
        reasons = []
        with callers_error_state():
            for callback in self._callbacks:
                callback.on_steps_end(self._network, epoch, result.losses)
            for callback in self._callbacks:
                told = callback.on_epoch_cut if result.cut else callback.on_epoch_end
                known = list(metrics)
                if reason := told(self._network, epoch, metrics):
                    reasons.append((type(callback).__name__, str(reason)))
                _check_metrics(type(callback).__name__, known, epoch, metrics)
        answers = self._communicator.gather((reasons, metrics))
        for _, others in answers:
            # Callbacks of the first rank alone may have added some; all ranks have the same history.
            metrics |= {name: value for name, value in others.items() if name not in metrics}
        stops = [stop for given, _ in answers for stop in given]
        if stops:
            self._history.stopped_by, self._reason = stops[0]

    def epochs_end(self, epoch: int) -> None:
        # After the table's line for the epoch.
        if self._reason:
            self._note(f"stopped after epoch {epoch}: {self._reason}")


def _check_metrics(callback: str, known: Sequence[str], epoch: int, metrics: dict[str, float]) -> None:
    """Check the metrics of an epoch after a callback, which may have added some, and convert them to floats.

    Raises
    ------
    InvalidInputError
        It has added something that is no number, or removed a metric.
    """
    for name in known:
        if name not in metrics:
            raise InvalidInputError(f"the callback {callback} has removed the metric {name!r}; it may only add some")
    if metrics["epoch"] != epoch:
        raise InvalidInputError(f"the callback {callback} has set metrics['epoch'] to {shown(metrics['epoch'])}")
    for name, value in metrics.items():
        if isinstance(name, str) and name.isprintable():
            if type(value) is float or (type(value) is int and value.bit_length() <= _MOST_BITS):
                continue
            number = np.asarray(value)
            if not number.ndim and number.dtype.kind in "buif":
                metrics[name] = float(number)
                continue
        raise InvalidInputError(
            f"the callback {callback} has set metrics[{name!r}] to {shown(value)}; a metric is a number by name, which "
            "fits into a float, and its name is printable text"
        )


class SignalListener(Listener):
    """Ends the run after the current step on Ctrl-C or, optionally, SIGTERM.

    Parameters
    ----------
    interrupt : Interrupt
    history : History
        Records that the run was interrupted.
    communicator : Communicator
        All ranks stop together.
    note : callable
        Prints a line.
    """

    def __init__(
        self, interrupt: Interrupt, history: History, communicator: Communicator, note: Callable[[str], None]
    ) -> None:
        self._interrupt, self._history = interrupt, history
        self._communicator, self._note = communicator, note

    def __enter__(self) -> SignalListener:
        self._interrupt.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupt.__exit__(kind, error, trace)

    def allow(self, done: int, steps: int) -> int:
        return self._interrupt.allow(done, steps)

    def steps_end(self, epoch: int, result: EpochResult) -> None:
        if result.cut:
            # The checkpoint was written when the epoch was interrupted.
            self._interrupt.exit_if_terminated()
        self._ask()

    def epoch_end(self, epoch: int, result: EpochResult, metrics: dict[str, float]) -> None:
        # Ctrl-C may have come during validation or in a callback. A signal after this interrupts the next epoch at its
        # first step.
        self._ask()

    def epochs_end(self, epoch: int) -> None:
        # Not sooner, because the last checkpoint is written first.
        self._interrupt.exit_if_terminated()
        if self._history.interrupted:
            self._note(f"interrupted in epoch {epoch}; the network keeps what it has learned")

    def _ask(self) -> None:
        self._history.interrupted = self._communicator.any(self._interrupt.requested)
