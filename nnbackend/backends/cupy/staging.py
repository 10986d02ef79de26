"""Transfers rows to the GPU while it computes: page-locked memory, and copies on a second stream."""

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
        Of each half.
    """

    def __init__(
        self, runtime: Runtime, halves: tuple[Array, Array], shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> None:
        self._runtime = runtime
        self._halves = halves
        self._memory = [runtime.pinned(shape, dtype) for _ in halves]
        #: Mark at the end of the last copy from each half's memory.
        self._copied: list[Mark | None] = [None, None]
        #: Mark at the last `send`. All work on the half that is sent next was enqueued before it, so the next copy need
        #: not wait for anything enqueued later.
        self._sent = runtime.mark()

    def memory(self, half: int) -> HostArray:
        copied = self._copied[half]
        if copied is not None:
            self._runtime.wait(copied)
        return self._memory[half]

    def send(self, half: int) -> None:
        before, self._sent = self._sent, self._runtime.mark()
        self._copied[half] = self._runtime.send(self._memory[half], self._halves[half], before)
