"""Handles Ctrl-C and optionally SIGTERM during training: the current step is finished and the network stays usable."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from nnbackend.distributed.communicator import Alone, Communicator
from nnbackend.step.replay import Watch

__all__ = ["TERMINATED", "Interrupt"]

#: The exit code of a program that SIGTERM ended, as shells report it: 128 + 15.
TERMINATED = 143


class Interrupt(Watch):
    """A context in which the first Ctrl-C only sets a flag; a second one raises KeyboardInterrupt as usual.

    A replay that it watches ends when the flag is set. Outside the main thread, where Python delivers no signals, it
    does nothing. Several runs may enter it, and end together.

    Parameters
    ----------
    terminate : bool
        Whether to handle SIGTERM in the same way. It then ends the program with the code `TERMINATED`, immediately if
        it comes twice. A handler installed by the program is not replaced.
    communicator : Communicator, optional
        The ranks that end together.

    Attributes
    ----------
    requested, terminated : bool
        Whether this rank's run must end, and whether SIGTERM requested it.
    """

    def __init__(self, terminate: bool = False, communicator: Communicator | None = None) -> None:
        self.requested = self.terminated = False
        self._terminate = terminate
        self._communicator = Alone() if communicator is None else communicator
        self._previous: dict[int, Any] = {}
        self._entered = 0

    def __enter__(self) -> Interrupt:
        self._entered += 1
        if self._entered > 1:
            return self
        if threading.current_thread() is not threading.main_thread():
            return self
        # A background job of a shell ignores Ctrl-C, which is meant for the job in the foreground.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._handle)
        if self._terminate and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._handle_term)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def _handle_term(self, number: int, frame: FrameType | None) -> None:
        if self.terminated:
            raise SystemExit(TERMINATED)
        self.requested = self.terminated = True

    def allow(self, done: int, steps: int) -> int:
        return 0 if self.requested else steps

    def exit_if_terminated(self) -> None:
        """Raise SystemExit on all ranks if SIGTERM has come to one of them."""
        if self._terminate and self._communicator.any(self.terminated):
            raise self._communicator.alike(SystemExit(TERMINATED))
