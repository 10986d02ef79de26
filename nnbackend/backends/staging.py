"""Double buffering: rows reach one half of a device buffer while the device works on the other half.

The caller alternates between the halves. It fills and sends half 0, starts work on it, and fills and sends half 1 while
that work runs. A half may be sent again once work on the other half was started. Before the caller begins again with
half 0, it waits for all work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nnbackend.backends.declaration import Array, HostArray

__all__ = ["InPlaceStaging", "Staging", "WrittenStaging"]


class Staging(ABC):
    """Transfers rows to the two halves of a device buffer."""

    @abstractmethod
    def memory(self, half: int) -> HostArray:
        """Host memory for the rows of a half, with its shape and dtype. Waits until the last transfer from this memory
        is done. May be called, and the memory filled, on a different thread from the one that starts the work."""

    @abstractmethod
    def send(self, half: int) -> None:
        """Transfer a half's rows to the device; work that is started later waits for the transfer."""


class InPlaceStaging(Staging):
    """For devices that use host memory and whose executors return when the work is done: no transfers."""

    def __init__(self, halves: tuple[HostArray, HostArray]) -> None:
        self._halves = halves

    def memory(self, half: int) -> HostArray:
        return self._halves[half]

    def send(self, half: int) -> None:
        pass


class WrittenStaging(Staging):
    """For any device: a host array for each half, transferred with :meth:`Backend.write`."""

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
