"""Steps that would break the network are left out: their loss, their gradients or what they make of the weights is NaN
or infinite.

Steps run on without the host, so they are looked at by the portion. A portion that went wrong is undone, run again up
to the step that broke it, and gone on with behind that. Several ranks do so together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Executor, HostArray
from nnbackend.distributed.communicator import Communicator
from nnbackend.network import Network
from nnbackend.step.recorder import OptimizerState

__all__ = ["Skipping"]


class Skipping:
    """Runs portions of steps without those that would break the network.

    Parameters
    ----------
    network : Network
    memory : OptimizerState
    counter : (3,) int64 device array
    trace : (steps of an epoch, 3) float64 device array
        What of a step that was left out stands there means nothing.
    communicator : Communicator
        Its ranks run the same portions.

    Attributes
    ----------
    left_out : list of int
        Steps of the epoch at hand, from 0; the optimiser does not count them.
    """

    def __init__(
        self, network: Network, memory: OptimizerState, counter: Array, trace: Array, communicator: Communicator
    ) -> None:
        self._network, self._memory, self._counter, self._trace = network, memory, counter, trace
        self._communicator = communicator
        self._buffers: list[Array] = [network.model.parameters, *memory.slots.values()]
        self._kept = [network.backend.from_host(network.backend.to_host(buffer)) for buffer in self._buffers]
        self.left_out: list[int] = []

    def run(self, executor: Executor, first: int, steps: int) -> None:
        """Run the steps of the epoch from `first` on, this many."""
        end = first + steps
        while first < end:
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                self._network.backend.copy(buffer, kept)
            executor.run(end - first)
            broken = self._broken(first, end)
            if broken is None:
                return
            # A loss shows what the step before made of the weights, and not every broken weight shows in a loss.
            while self._again(executor, first, broken) and broken > first:
                broken -= 1
            self.left_out.append(broken)
            first = broken + 1
            self._count_from(first)

    def _broken(self, first: int, end: int) -> int | None:
        """The first step whose loss is not finite, the last if what it left is not; None if all is well."""
        losses = self._network.backend.to_host(self._trace)[first:end]
        # A rank knows the losses of its own rows.
        wrong: HostArray = np.asarray(~np.isfinite(losses).all(axis=1), np.int64)
        self._communicator.allreduce(wrong)
        if wrong.any():
            return first + int(np.argmax(wrong > 0))
        return end - 1 if self._state_is_broken() else None

    def _again(self, executor: Executor, first: int, end: int) -> bool:
        """Undo the portion and run it up to the step `end`; whether that leaves a broken state."""
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            self._network.backend.copy(kept, buffer)
        self._count_from(first)
        if end > first:
            executor.run(end - first)
        return self._state_is_broken()

    def _state_is_broken(self) -> bool:
        sound = all(np.isfinite(self._network.backend.to_host(buffer)).all() for buffer in self._buffers)
        return self._communicator.any(not sound)

    def _count_from(self, step: int) -> None:
        self._network.backend.write(self.counts(step), self._counter)

    def counts(self, step: int) -> npt.NDArray[np.int64]:
        """The counter before a step of the epoch."""
        steps = self._memory.steps - len(self.left_out)
        return np.array([0, self._network.steps_trained, steps], np.int64) + step
