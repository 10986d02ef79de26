"""S12: 2-2-1, sigmoid, squared error, a variable for every weight, one person at a time: gender from weight and height.

Errors in the tutorial: none, but it is slow. It uses NumPy scalars, which are slower than Python's numbers, and every
partial derivative computes its sigmoid again: eleven times instead of three.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.tutorials.result import Result, accuracy
from nnbackend.datasets import Dataset, load

LEARNING_RATE = 0.1

Array = NDArray[np.float64]


def train(seed: int, *, epochs: int = 1_000, data: Dataset | None = None) -> Result:
    """Train on `data`, by default the four people. `first_loss` and `loss` are the losses after the first and last
    epoch."""
    data = data or load("people")
    net = TwoTwoOne(np.random.default_rng(seed))
    losses = []
    start = time.perf_counter()
    for epoch in range(epochs):
        for x, y in zip(data.x_train, data.y_train, strict=True):
            net.step(x, y)
        if epoch % 100 == 0:
            losses.append(net.loss(data.x_train, data.y_train))
    seconds = time.perf_counter() - start
    predicted = [net.forward(x) > 0.5 for x in data.x_test]
    figures = {"accuracy": accuracy(predicted, data.y_test), "loss": net.loss(data.x_train, data.y_train)}
    return Result(figures | {"first_loss": losses[0]} if losses else figures, seconds)


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def sigmoid_derivative(x: float) -> float:
    y = sigmoid(x)
    return y * (1 - y)


class TwoTwoOne:
    def __init__(self, generator: np.random.Generator) -> None:
        self.w1, self.w2, self.w3, self.w4, self.w5, self.w6 = generator.standard_normal(6).tolist()
        self.b1, self.b2, self.b3 = generator.standard_normal(3).tolist()

    def forward(self, x: Array) -> float:
        h1 = sigmoid(self.w1 * x[0] + self.w2 * x[1] + self.b1)
        h2 = sigmoid(self.w3 * x[0] + self.w4 * x[1] + self.b2)
        return sigmoid(self.w5 * h1 + self.w6 * h2 + self.b3)

    def loss(self, x: Array, y: NDArray[np.integer]) -> float:
        return float(((y - np.apply_along_axis(self.forward, 1, x)) ** 2).mean())

    def step(self, x: Array, y: float) -> None:
        """One step on one person."""
        sum_1 = self.w1 * x[0] + self.w2 * x[1] + self.b1
        sum_2 = self.w3 * x[0] + self.w4 * x[1] + self.b2
        h1, h2 = sigmoid(sum_1), sigmoid(sum_2)
        sum_3 = self.w5 * h1 + self.w6 * h2 + self.b3
        slope = -2 * (y - sigmoid(sum_3))  # derivative of the loss with respect to the output

        # Derivatives of the output with respect to the last neuron's weights and inputs, and of the hidden outputs
        # likewise.
        by_w5, by_w6 = h1 * sigmoid_derivative(sum_3), h2 * sigmoid_derivative(sum_3)
        by_b3 = sigmoid_derivative(sum_3)
        by_h1, by_h2 = self.w5 * sigmoid_derivative(sum_3), self.w6 * sigmoid_derivative(sum_3)
        h1_by_w1, h1_by_w2 = x[0] * sigmoid_derivative(sum_1), x[1] * sigmoid_derivative(sum_1)
        h1_by_b1 = sigmoid_derivative(sum_1)
        h2_by_w3, h2_by_w4 = x[0] * sigmoid_derivative(sum_2), x[1] * sigmoid_derivative(sum_2)
        h2_by_b2 = sigmoid_derivative(sum_2)

        self.w1 -= LEARNING_RATE * slope * by_h1 * h1_by_w1
        self.w2 -= LEARNING_RATE * slope * by_h1 * h1_by_w2
        self.b1 -= LEARNING_RATE * slope * by_h1 * h1_by_b1
        self.w3 -= LEARNING_RATE * slope * by_h2 * h2_by_w3
        self.w4 -= LEARNING_RATE * slope * by_h2 * h2_by_w4
        self.b2 -= LEARNING_RATE * slope * by_h2 * h2_by_b2
        self.w5 -= LEARNING_RATE * slope * by_w5
        self.w6 -= LEARNING_RATE * slope * by_w6
        self.b3 -= LEARNING_RATE * slope * by_b3
