"""scikit-learn: `MLPClassifier.partial_fit`, one pass over the images in random order."""

from __future__ import annotations

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.data import Weights, scaled
from benchmarks.peers.works import CLASSES, Work

__all__ = ["MLP"]

_ACTIVATIONS = {"relu": "relu", "sigmoid": "logistic"}


class _Run(Training):
    def __init__(self, contender: MLP, work: Work, weights: Weights) -> None:
        self._x, self._y = contender.images, contender.y
        self._work = work
        self._model = MLPClassifier(
            work.hidden,
            activation=_ACTIVATIONS[work.activation],
            solver=work.optimizer,
            alpha=0,
            batch_size=work.batch_size,
            learning_rate_init=work.learning_rate,
            momentum=0,
            shuffle=False,
            random_state=0,
        )
        # Weights can be set only after a first pass, whose effect on the optimiser must be undone.
        first = slice(work.batch_size)
        self._model.partial_fit(self._x[first], self._y[first], classes=np.arange(CLASSES))
        for index, (weight, bias) in enumerate(weights):
            self._model.coefs_[index][...] = weight
            self._model.intercepts_[index][...] = bias
        del self._model._optimizer

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        losses = []
        for rows in batches:
            self._model.partial_fit(self._x[rows], self._y[rows])
            losses.append(float(self._model.loss_))
        self._model.set_params(shuffle=True)
        return losses

    def shuffle(self) -> None:
        """scikit-learn draws the order itself, in `run`."""

    def run(self, steps: int) -> None:
        rows = steps * self._work.batch_size
        self._model.partial_fit(self._x[:rows], self._y[:rows])


class MLP(Contender):
    """Uses float32 images, because it would convert uint8 in every call."""

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
        self.images, self.y = scaled(x), y

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(self, work, weights)
