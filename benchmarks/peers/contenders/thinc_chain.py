"""thinc: a chain of layers, with its NumPy operations and BLIS for matrix products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from thinc import api

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.data import Weights, scaled
from benchmarks.peers.works import Work

__all__ = ["Chain"]


class _Run(Training):
    def __init__(self, contender: Chain, work: Work, weights: Weights) -> None:
        self._x, self._targets, self._y = contender.images, contender.targets, contender.y
        self._work = work
        hidden = {"relu": api.Relu, "sigmoid": api.Sigmoid}[work.activation]
        *inner, last = weights
        layers = [hidden(nO=len(bias), nI=len(weight)) for weight, bias in inner]
        layers.append(api.Softmax(nO=len(last[1]), nI=len(last[0])))
        self._model = api.chain(*layers)
        self._model.initialize()
        for layer, (weight, bias) in zip(layers, weights, strict=True):
            layer.set_param("W", np.ascontiguousarray(weight.T))
            layer.set_param("b", bias)
        # Plain rules, without thinc's additional changes of gradients and weights.
        rule = {"sgd": api.SGD, "adam": api.Adam}[work.optimizer]
        self._optimizer = rule(work.learning_rate, L2=0.0, grad_clip=0.0, use_averages=False)
        self._generator = np.random.default_rng(0)

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        losses = []
        for rows in batches:
            probabilities = self._step(rows)
            losses.append(float(-np.log(probabilities[np.arange(len(rows)), self._y[rows]]).mean()))
        return losses

    def shuffle(self) -> None:
        self._order = self._generator.permutation(self._work.rows)

    def run(self, steps: int) -> None:
        for rows in self._order[: steps * self._work.batch_size].reshape(steps, -1):
            self._step(rows)

    def _step(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        probabilities, backprop = self._model.begin_update(self._x[rows])
        # Its softmax layer passes on the gradient of the logits unchanged.
        backprop((probabilities - self._targets[rows]) / np.float32(len(rows)))
        self._model.finish_update(self._optimizer)
        return probabilities


class Chain(Contender):
    """Uses float32 images and one-hot labels."""

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        self.images, self.y = scaled(x), y
        self.targets = np.eye(10, dtype=np.float32)[y]

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(self, work, weights)
