"""Rows on their way to a GPU that is at work: page-locked memory, and copies on a stream of their own."""

from __future__ import annotations

import numpy.typing as npt

from nnbackend.backends.contract import Array, HostArray, Staging
from nnbackend.backends.cupy.interface import Mark, Runtime

__all__ = ["PinnedStaging"]


class PinnedStaging(Staging):
    """Copies that overlap with kernels.

    Parameters
    ----------
    runtime : Runtime
    halves : two device arrays
    shape, dtype
        Of each.
    """

    def __init__(
        self, runtime: Runtime, halves: tuple[Array, Array], shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> None:
        self._runtime = runtime
        self._halves = halves
        self._memory = [runtime.pinned(shape, dtype) for _ in halves]
        #: When the last copy from each half's memory was done.
        self._arrived: list[Mark | None] = [None, None]
        #: What had been asked for when a half was last sent: all work on the half that is sent next, and none on the
        #: other. Nothing that came later has to be done before the next copy.
        self._asked = runtime.mark()

    def memory(self, half: int) -> HostArray:
        arrived = self._arrived[half]
        if arrived is not None:
            self._runtime.wait(arrived)
        return self._memory[half]

    def send(self, half: int) -> None:
        before, self._asked = self._asked, self._runtime.mark()
        self._arrived[half] = self._runtime.send(self._memory[half], self._halves[half], before)
