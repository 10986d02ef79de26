"""S11: one neuron, a 2-2-1 network of three such neurons, and a mean squared error: a forward pass without training.

There are no errors.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.tutorials.result import Result

Array = NDArray[np.float64]


def train(seed: int = 0) -> Result:
    """The tutorial's three numbers. Nothing is random; `seed` exists because every baseline has it."""
    x = np.array([2, 3])
    start = time.perf_counter()
    neuron = Neuron(np.array([0, 1]), bias=4).forward(x)
    network = Network().forward(x)
    loss = mean_squared_error(np.array([1, 0, 0, 1]), np.array([0, 0, 0, 0]))
    seconds = time.perf_counter() - start
    return Result({"neuron": float(neuron), "network": float(network), "loss": float(loss)}, seconds)


def mean_squared_error(expected: Array, predicted: Array) -> np.float64:
    return ((expected - predicted) ** 2).mean()


class Neuron:
    def __init__(self, weights: Array, bias: float) -> None:
        self.weights, self.bias = weights, bias

    def forward(self, inputs: Array) -> np.float64:
        return 1 / (1 + np.exp(-(np.dot(self.weights, inputs) + self.bias)))


class Network:
    """Two hidden neurons and one output neuron, all with weights (0, 1) and bias 0."""

    def __init__(self) -> None:
        self.hidden_1, self.hidden_2, self.output = (Neuron(np.array([0, 1]), bias=0) for _ in range(3))

    def forward(self, x: Array) -> np.float64:
        return self.output.forward(np.array([self.hidden_1.forward(x), self.hidden_2.forward(x)]))
