"""S2, OneNet: logistic regression on the truth tables of AND, OR and NOT, full batch, NumPy.

Errors in the tutorial: its penalty adds the sum of all weights to the gradient of every weight, so it penalises only
their sum; for AND the bias has a column for each input instead of one for the output, so broadcasting makes the weights
2 x 2: two copies of one classifier, coupled only by the penalty. The text says 20,000 steps, but the code takes
200,000, and so do its results.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.tutorials.result import Result, accuracy
from nnbackend.datasets import Dataset, load

LEARNING_RATE = 1e-3
PENALTY = 1e-3

#: The results printed for OR and NOT are from biases of the correct shape.
BIAS_COLUMNS = {"and": 2, "or": 1, "not": 1}

Array = NDArray[np.float64]


def train(seed: int, *, epochs: int = 200_000, gate: str = "and", data: Dataset | None = None) -> Result:
    """Train on the truth table of `gate`: "and", "or" or "not". An epoch is one step."""
    data = data or load(gate)
    x, y = data.x_train, data.y_train[:, np.newaxis]
    generator = np.random.default_rng(seed)
    net = OneNet(generator, inputs=x.shape[1], bias_columns=BIAS_COLUMNS[gate])
    losses = []
    start = time.perf_counter()
    total = 0.0
    for epoch in range(epochs):
        probabilities = net.forward(x)
        total += loss(probabilities, y)
        net.backward(y)
        net.update()
        if epoch % 500 == 499:
            losses.append(total / 500)
            total = 0.0
    seconds = time.perf_counter() - start
    figures = {f"weight_{i + 1}": float(row[0]) for i, row in enumerate(net.weights)}
    figures |= {"bias": float(net.bias[0, 0]), "loss": losses[-1] if losses else float("nan")}
    figures["accuracy"] = accuracy(net.forward(data.x_test)[:, 0] > 0.5, data.y_test)
    return Result(figures, seconds)


def loss(probabilities: Array, y: NDArray[np.integer]) -> float:
    """Binary cross-entropy of the first column; 1e-4 keeps the logarithms finite."""
    log_likelihood = y.T @ np.log(probabilities + 1e-4) + (1 - y).T @ np.log(1 - probabilities + 1e-4)
    return float((-1 / len(y) * log_likelihood)[0, 0])


class OneNet:
    def __init__(self, generator: np.random.Generator, inputs: int, bias_columns: int) -> None:
        # One column of weights; the first update broadcasts it to the bias's number of columns.
        self.weights = 0.01 * generator.standard_normal((inputs, 1))
        self.bias = 0.01 * generator.standard_normal((1, bias_columns))

    def forward(self, x: Array) -> Array:
        self.x = x
        self.probabilities = 1 / (1 + np.exp(-(x @ self.weights + self.bias)))
        return self.probabilities

    def backward(self, y: NDArray[np.integer]) -> None:
        delta = (self.probabilities - y) / len(y)
        self.weights_gradient = self.x.T @ delta
        self.bias_gradient = np.sum(delta, axis=0)

    def update(self) -> None:
        # L2 would be PENALTY * self.weights.
        penalty = PENALTY * np.sum(self.weights)
        self.weights = self.weights - LEARNING_RATE * (self.weights_gradient + penalty)
        self.bias = self.bias - LEARNING_RATE * self.bias_gradient
