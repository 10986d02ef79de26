"""The network of S1, which learns by "demands"; see circle.py."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SHAPE = (2, 100, 200, 100, 2)
LEARNING_RATE = 0.003

Array = NDArray[np.float64]


def divided_by_largest(array: Array, axis: int | None = 1) -> Array:
    largest = np.max(np.absolute(array), axis=axis, keepdims=True)
    # Like the tutorial, divides by zero before checking for zeros, and warns there.
    with np.errstate(divide="ignore"):
        return array * np.where(largest == 0, 1, 1 / largest)


class Layer:
    def __init__(self, generator: np.random.Generator, inputs: int, outputs: int) -> None:
        self.weights = generator.standard_normal((inputs, outputs))
        self.biases = generator.standard_normal(outputs)

    def forward(self, x: Array) -> Array:
        return x @ self.weights + self.biases

    def move_biases(self, demands: Array) -> None:
        self.biases = divided_by_largest(self.biases + LEARNING_RATE * demands.mean(axis=0), axis=None)

    def move_weights(self, x: Array, demands: Array) -> None:
        wanted = np.zeros(self.weights.shape)
        for row, demand in zip(x, demands, strict=True):  # a loop over the batch where one product would do
            wanted = wanted + row[:, np.newaxis] * demand
        self.weights = divided_by_largest(self.weights + LEARNING_RATE * divided_by_largest(wanted / len(x)))


class Network:
    def __init__(self, generator: np.random.Generator) -> None:
        self.layers = [Layer(generator, *sizes) for sizes in pairwise(SHAPE)]

    def outputs(self, x: Array) -> list[Array]:
        outputs = [x]
        for layer in self.layers[:-1]:
            outputs.append(divided_by_largest(np.maximum(0, layer.forward(outputs[-1]))))
        scores = self.layers[-1].forward(outputs[-1])
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return [*outputs, powers / powers.sum(axis=1, keepdims=True)]

    def predict(self, x: Array) -> Array:
        return np.rint(self.outputs(x)[-1][:, 1])

    def stepped(self, outputs: list[Array], targets: Array) -> Network:
        """A changed copy; this network is unchanged."""
        new = copy.deepcopy(self)
        demands = np.zeros(targets.shape)
        for i in range(len(targets)):
            if not outputs[-1][i] @ targets[i] > 0.5:
                demands[i] = 2 * (targets[i] - 0.5)
        last = new.layers[-1]
        last.move_biases(demands)
        last.move_weights(outputs[-2], demands)
        # Backwards through the weights that have just changed; the layers below use their old weights.
        demands = divided_by_largest(demands @ last.weights.T)
        for layer, x in zip(new.layers[-2::-1], outputs[-3::-1], strict=True):
            layer.move_biases(demands)  # without ReLU's derivative
            active = demands * (layer.forward(x) > 0)  # with the biases just changed
            demands = divided_by_largest(active @ layer.weights.T)
            layer.move_weights(x, active)
        return new
