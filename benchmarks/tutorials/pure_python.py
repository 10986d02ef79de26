"""S6: neurons, layers and a network as Python objects, 2-2-2, sigmoid, squared error, one sample at a time.

Errors in the tutorial: the "mean squared error" it prints compares every output with the first labels of the table, (0,
0), instead of the row's target, so it rises while the network learns ("printed_error" below). Training does not use it.
(One seed in seven has not learned all ten points after 40 epochs, which is not an error.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp

from benchmarks.tutorials.result import Result, accuracy
from nnbackend.datasets import Dataset, load

LEARNING_RATE = 0.5


def train(seed: int, *, epochs: int = 40, hidden: int = 2, data: Dataset | None = None) -> Result:
    """Train on `data`, by default the ten points."""
    data = data or load("ten-points")
    rows, labels = data.x_train.tolist(), data.y_train.tolist()
    draw = random.Random(seed).random
    network = Network([Layer.drawn(draw, data.input_shape, hidden)], Layer.drawn(draw, hidden, len(data.classes)))
    start = time.perf_counter()
    printed_error = network.train(epochs, rows, labels)
    seconds = time.perf_counter() - start
    predicted = [network.predict(row) for row in data.x_test.tolist()]
    return Result({"accuracy": accuracy(predicted, data.y_test), "printed_error": printed_error}, seconds)


def squared_error(actual: Sequence[float], expected: Sequence[float]) -> float:
    return sum((actual[i] - expected[i]) ** 2 for i in range(len(actual))) / len(actual)


@dataclass
class Neuron:
    weights: list[float]
    bias: float
    delta: float = 0.0
    output: float = 0.0

    def activate(self, inputs: Sequence[float]) -> float:
        total = self.bias
        for i in range(len(self.weights)):
            total += self.weights[i] * inputs[i]
        self.output = 1 / (1 + exp(-total))
        return self.output

    def set_delta(self, error: float) -> None:
        self.delta = error * self.output * (1 - self.output)

    def update(self, inputs: Sequence[float]) -> None:
        for i in range(len(inputs)):
            self.weights[i] -= LEARNING_RATE * self.delta * inputs[i]
        self.bias -= LEARNING_RATE * self.delta


@dataclass
class Layer:
    neurons: list[Neuron]

    @classmethod
    def drawn(cls, draw: Callable[[], float], inputs: int, neurons: int) -> Layer:
        return cls([Neuron([draw() for _ in range(inputs)], draw()) for _ in range(neurons)])

    @property
    def outputs(self) -> list[float]:
        return [neuron.output for neuron in self.neurons]

    def activate(self, inputs: Sequence[float]) -> list[float]:
        return [neuron.activate(inputs) for neuron in self.neurons]

    def error_of_input(self, i: int) -> float:
        return sum(neuron.weights[i] * neuron.delta for neuron in self.neurons)


@dataclass
class Network:
    hidden_layers: list[Layer]
    output_layer: Layer

    def forward(self, inputs: Sequence[float]) -> list[float]:
        for layer in self.hidden_layers:
            inputs = layer.activate(inputs)
        return self.output_layer.activate(inputs)

    def backward(self, inputs: Sequence[float], errors: Sequence[float]) -> None:
        for neuron, error in zip(self.output_layer.neurons, errors, strict=True):
            neuron.set_delta(error)
        following = self.output_layer
        for layer in reversed(self.hidden_layers):
            for i, neuron in enumerate(layer.neurons):
                neuron.set_delta(following.error_of_input(i))
            following = layer
        self.update(inputs)

    def update(self, inputs: Sequence[float]) -> None:
        for layer in [*self.hidden_layers, self.output_layer]:
            for neuron in layer.neurons:
                neuron.update(inputs)
            inputs = layer.outputs

    def train(self, epochs: int, rows: list[list[float]], labels: list[int]) -> float:
        """The error that the tutorial prints after the last epoch."""
        printed_error = 0.0
        for _ in range(epochs):
            printed_error = 0.0
            for row, label in zip(rows, labels, strict=True):
                expected = [0] * len(self.output_layer.neurons)
                expected[label] = 1
                actual = self.forward(row)
                self.backward(row, [output - target for output, target in zip(actual, expected, strict=True)])
                printed_error += squared_error(actual, labels)  # should be `expected`
        return printed_error

    def predict(self, inputs: Sequence[float]) -> int:
        outputs = self.forward(inputs)
        return outputs.index(max(outputs))
