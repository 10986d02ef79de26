"""Plain CuPy: NumPy's formulae on device arrays, each with at least one kernel."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contenders.base import Contender, Training
from benchmarks.peers.data import Weights, scaled
from benchmarks.peers.dry import is_dry
from benchmarks.peers.works import Work

__all__ = ["Plain"]

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class _Run(Training):
    def __init__(self, contender: Plain, work: Work, weights: Weights) -> None:
        self._xp, self._work = contender.xp, work
        self._x, self._y = contender.images, contender.labels
        self._parameters = [[self._xp.asarray(values) for values in layer] for layer in weights]
        self._moments = [
            [(self._xp.zeros_like(p), self._xp.zeros_like(p)) for p in layer] for layer in self._parameters
        ]
        self._steps = 0

    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        return [float(self._step(self._xp.asarray(rows))) for rows in batches]

    def shuffle(self) -> None:
        self._order = self._xp.random.permutation(self._work.rows)

    def run(self, steps: int) -> None:
        size = self._work.batch_size
        for step in range(steps):
            self._step(self._order[step * size : (step + 1) * size])
        if self._xp is not np:
            self._xp.cuda.get_current_stream().synchronize()

    def _step(self, rows: Any) -> Any:
        xp = self._xp
        inputs, labels = [self._x[rows]], self._y[rows]
        for index, (weight, bias) in enumerate(self._parameters):
            z = inputs[-1] @ weight + bias
            inputs.append(z if index == len(self._parameters) - 1 else self._activation(z))
        shifted = inputs[-1] - inputs[-1].max(axis=1, keepdims=True)
        exponentials = xp.exp(shifted)
        sums = exponentials.sum(axis=1, keepdims=True)
        each = xp.arange(len(rows))
        loss = (xp.log(sums[:, 0]) - shifted[each, labels]).mean()
        delta = exponentials / sums
        delta[each, labels] -= 1
        delta /= xp.float32(len(rows))
        self._steps += 1
        for index in reversed(range(len(self._parameters))):
            gradients = inputs[index].T @ delta, delta.sum(axis=0)
            if index:
                delta = (delta @ self._parameters[index][0].T) * self._slope(inputs[index])
            for place, gradient in enumerate(gradients):
                self._update(index, place, gradient)
        return loss

    def _activation(self, z: Any) -> Any:
        if self._work.activation == "relu":
            return self._xp.maximum(z, 0)
        return 1 / (1 + self._xp.exp(-z))

    def _slope(self, output: Any) -> Any:
        return output > 0 if self._work.activation == "relu" else output * (1 - output)

    def _update(self, index: int, place: int, gradient: Any) -> None:
        parameter, rate = self._parameters[index][place], self._work.learning_rate
        if self._work.optimizer == "sgd":
            parameter -= rate * gradient
            return
        first, second = self._moments[index][place]
        first += (1 - _BETA1) * (gradient - first)
        second += (1 - _BETA2) * (gradient * gradient - second)
        root = self._xp.sqrt(second) / (1 - _BETA2**self._steps) ** 0.5
        parameter -= rate / (1 - _BETA1**self._steps) * first / (root + _EPSILON)


class Plain(Contender):
    """Everything stays on the device, and nothing is read back."""

    xp: ModuleType

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        if is_dry():
            self.xp = np
        else:
            import cupy

            self.xp = cupy
        self.images, self.labels = self.xp.asarray(scaled(x)), self.xp.asarray(y)

    def build(self, work: Work, weights: Weights) -> Training:
        return _Run(self, work, weights)
