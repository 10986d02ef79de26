"""How rows reach a device that is at work meanwhile: a buffer in two halves, one of which is filled while the device
reads the other.

Whoever brings rows uses the halves in turn: fills the memory of half 0 and sends it, asks for work on it, and fills and
sends half 1 while that work is done. A half is sent again no earlier than after work on the other one was asked for;
before it starts over with half 0 it waits for all work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nnbackend.backends.declaration import Array, HostArray

__all__ = ["InPlaceStaging", "Staging", "WrittenStaging"]


class Staging(ABC):
    """The way into the two halves of a device buffer."""

    @abstractmethod
    def memory(self, half: int) -> HostArray:
        """Host memory for the rows of a half, of its shape and dtype. Waits until what was sent from there has arrived;
        may be called, and filled, on another thread than the one that asks for work."""

    @abstractmethod
    def send(self, half: int) -> None:
        """Bring a half's rows to the device, before the work that is asked for from now on."""


class InPlaceStaging(Staging):
    """For devices whose memory is the host's and whose executors return when the work is done: nothing to send."""

    def __init__(self, halves: tuple[HostArray, HostArray]) -> None:
        self._halves = halves

    def memory(self, half: int) -> HostArray:
        return self._halves[half]

    def send(self, half: int) -> None:
        pass


class WrittenStaging(Staging):
    """For any device: an array on the host for each half, and :meth:`Backend.write`."""

    def __init__(
        self,
        write: Callable[[HostArray, Array], None],
        halves: tuple[Array, Array],
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
    ) -> None:
        self._write, self._halves = write, halves
        self._memory = [np.zeros(shape, dtype) for _ in halves]

    def memory(self, half: int) -> HostArray:
        return self._memory[half]

    def send(self, half: int) -> None:
        self._write(self._memory[half], self._halves[half])
