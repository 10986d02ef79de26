"""Keras: `Model.fit`, on the backend that KERAS_BACKEND names; by default JAX, or else PyTorch."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.data import Weights, scaled
from benchmarks.peers.works import CLASSES, PIXELS, Work

__all__ = ["Fit"]


class _Run(Training):
    def __init__(self, contender: Fit, work: Work, weights: Weights) -> None:
        self._x, self._y = contender.images, contender.y
        self._work = work
        layers = [keras.layers.Dense(units, activation=work.activation) for units in work.hidden]
        self._model = keras.Sequential([keras.Input((PIXELS,)), *layers, keras.layers.Dense(CLASSES)])
        self._model.set_weights([array for pair in weights for array in pair])
        if work.optimizer == "sgd":
            optimizer = keras.optimizers.SGD(work.learning_rate)
        else:
            optimizer = keras.optimizers.Adam(work.learning_rate, epsilon=1e-8)
        self._model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        losses = []
        for rows in batches:
            # It returns the mean since the last reset.
            self._model.reset_metrics()
            losses.append(float(self._model.train_on_batch(self._x[rows], self._y[rows])))
        return losses

    def shuffle(self) -> None:
        """Keras draws the order itself, in `run`."""

    def run(self, steps: int) -> None:
        rows = steps * self._work.batch_size
        self._model.fit(self._x[:rows], self._y[:rows], batch_size=self._work.batch_size, verbose=0)


class Fit(Contender):
    """Uses images in float32."""

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        self.images, self.y = scaled(x), y

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(self, work, weights)
