"""The exponential moving average of the weights (Polyak and Juditsky 1992; Tarvainen and Valpola 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, HostArray
from nnbackend.step.model import Model
from nnbackend.step.recorder import Recorder

__all__ = ["WeightAverage"]


class WeightAverage:
    """The average of the trained parameters after each step of a run.

    After step t it is ``sum_i decay^(t - i) w_i / sum_i decay^(t - i)`` over the steps i = 1 .. t. While steps run, the
    network has the weights of the last step. Between epochs it has their average, and `trained` the weights of the last
    step.

    Parameters
    ----------
    model : Model
    decay : float
        0 <= decay < 1.

    Attributes
    ----------
    average, trained : (layout.trainable_size,) arrays
    steps : int
        Number of steps in the average, without those of the current epoch.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self._model, self._decay = model, decay
        size = (model.layout.trainable_size,)
        self.average, self.trained = (model.backend.empty(size, model.dtype) for _ in range(2))
        self.steps = 0
        self._shown = False
        model.backend.copy(model.trained, self.average)

    def record(self, recorder: Recorder, shares: Array) -> None:
        """Record the last call of a step, before the counter advances; `shares` has the values of :meth:`shares`."""
        recorder.record("blend", recorder.model.trained, 1.0, recorder.counter, shares, self.average)

    def shares(self, steps: int, skipped: Sequence[int] = ()) -> npt.NDArray[np.float64]:
        """The share of the newest weights in each of an epoch's steps, shape (steps,): 1 in the first step of all.

        Parameters
        ----------
        steps : int
        skipped : sequence of int
            Steps of the epoch that do not count, from 0; their shares are meaningless.
        """
        counted = np.ones(steps)
        counted[list(skipped)] = 0
        taken = np.maximum(self.steps + np.cumsum(counted), 1)
        shares: npt.NDArray[np.float64] = (1 - self._decay) / (1 - np.power(self._decay, taken))
        return shares

    def begin_steps(self) -> None:
        """Give the network the weights of the last step, with which it trains."""
        if self._shown:
            self._model.backend.copy(self.trained, self._model.trained)
        self._shown = False

    def end_steps(self, steps: int) -> None:
        """Give the network the average, after an epoch of this number of steps, without skipped ones."""
        backend, trained = self._model.backend, self._model.trained
        backend.copy(trained, self.trained)
        backend.copy(self.average, trained)
        self.steps += steps
        self._shown = True

    def values(self) -> tuple[dict[str, HostArray], dict[str, HostArray], dict[str, HostArray]]:
        """What the network has between epochs, the average, and the weights of the last step, on the host by name.

        The first two differ where a callback changed the weights after the epoch.
        """
        current = self._model.trained
        buffers = (current, self.average, self.trained) if self._shown else (self.average, self.average, current)
        unpack, read = self._model.layout.trainable.unpack, self._model.backend.to_host
        between, average, trained = (unpack(read(buffer)) for buffer in buffers)
        return between, average, trained

    def restore(self, average: HostArray, trained: HostArray, steps: int) -> None:
        """Continue as after an epoch.

        Parameters
        ----------
        average, trained : (layout.trainable_size,) arrays
            The average, and the weights of the last step.
        steps : int
            Number of steps in the average.
        """
        self._model.backend.write(average, self.average)
        self._model.backend.write(trained, self.trained)
        self.steps, self._shown = steps, True
