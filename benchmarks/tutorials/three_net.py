"""S4 and S5, ThreeNet: two ReLU layers, softmax cross-entropy with L2, on iris and on MNIST; float64 NumPy.

Errors in the tutorial: the biases of the second and third layer are updated with themselves instead of their gradients,
so they only shrink; exp without the usual shift can overflow. On MNIST the pixels range from 0 to 255; images are
shuffled only once, before training; the last batch of every epoch is skipped, so the last 96 of 60,000 images are never
used; and the "training accuracy" that selects the best network is that of a single batch: it soon is 100 %, and because
the last of equals wins, the last such network is the best.
"""

from __future__ import annotations

import copy
import time
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tutorials.result import Result, accuracy, cross_entropy
from nnbackend.datasets import Dataset, load

PENALTY = 1e-3

Array = NDArray[np.float64]


def train(seed: int, *, epochs: int = 10_000, data: Dataset | None = None) -> Result:
    """S4: 4-20-20-3 on `data`, by default iris, with full batches. An epoch is one step."""
    data = data or load("iris")
    net = ThreeNet(np.random.default_rng(seed), (data.input_shape, 20, 20, len(data.classes)), learning_rate=0.05)
    best, best_accuracy, loss, total = net, 0.0, float("nan"), 0.0
    start = time.perf_counter()
    for epoch in range(epochs):
        total += net.step(data.x_train, data.y_train)
        if epoch % 100 == 99:
            loss, total = total / 100, 0.0
            train_accuracy = accuracy(net.predict(data.x_train), data.y_train)
            if train_accuracy >= best_accuracy:
                best, best_accuracy = copy.deepcopy(net), train_accuracy
    seconds = time.perf_counter() - start
    return Result(figures(best, data, best_accuracy, loss), seconds)


def train_mnist(seed: int, *, epochs: int = 200, batch_size: int = 256, data: Dataset | None = None) -> Result:
    """S5: 784-200-80-10 on `data`, by default MNIST."""
    data = data or load("mnist")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(data.x_train))
    x, y = data.x_train[order], data.y_train[order]
    # Stops one batch early, even if the batch size divides the number of images.
    starts = range(0, len(x) - batch_size, batch_size)
    net = ThreeNet(generator, (data.input_shape, 200, 80, len(data.classes)), learning_rate=1e-3)
    best, best_accuracy, loss = net, 0.0, float("nan")
    start = time.perf_counter()
    for _ in range(epochs):
        total = 0.0
        for first in starts:
            batch, labels = x[first : first + batch_size], y[first : first + batch_size]
            total += net.step(batch, labels)
        loss = total / len(starts)
        batch_accuracy = accuracy(net.predict(batch), labels)
        if batch_accuracy >= best_accuracy:
            best, best_accuracy = copy.deepcopy(net), batch_accuracy
    seconds = time.perf_counter() - start
    return Result(figures(best, data, best_accuracy, loss), seconds)


def figures(best: ThreeNet, data: Dataset, best_accuracy: float, loss: float) -> dict[str, float]:
    """`train_accuracy` is the accuracy that selected the best network."""
    test_accuracy = accuracy(best.predict(data.x_test), data.y_test)
    return {"accuracy": test_accuracy, "train_accuracy": best_accuracy, "loss": loss}


class ThreeNet:
    def __init__(self, generator: np.random.Generator, sizes: tuple[int, int, int, int], learning_rate: float) -> None:
        self.learning_rate = learning_rate
        (self.w1, self.b1), (self.w2, self.b2), (self.w3, self.b3) = (
            (0.01 * generator.standard_normal((inputs, outputs)), 0.01 * generator.standard_normal((1, outputs)))
            for inputs, outputs in pairwise(sizes)
        )

    def step(self, x: NDArray[Any], y: NDArray[np.integer]) -> float:
        """Take a step; returns the cross-entropy before it."""
        loss = cross_entropy(self.forward(x), y)
        self.backward(y)
        self.update()
        return loss

    def predict(self, x: NDArray[Any]) -> NDArray[np.intp]:
        return self.forward(x).argmax(axis=1)

    def forward(self, x: NDArray[Any]) -> Array:
        self.x = x  # uint8 for images, which every product converts to float64 first
        self.z1 = x @ self.w1 + self.b1
        self.a1 = np.maximum(0, self.z1)
        self.z2 = self.a1 @ self.w2 + self.b2
        self.a2 = np.maximum(0, self.z2)
        powers = np.exp(self.a2 @ self.w3 + self.b3)
        self.probabilities = powers / np.sum(powers, axis=1, keepdims=True)
        return self.probabilities

    def backward(self, y: NDArray[np.integer]) -> None:
        rows = len(y)
        delta = self.probabilities
        delta[np.arange(rows), y] -= 1
        delta /= rows
        self.dw3 = self.a2.T @ delta
        self.db3 = np.sum(delta, axis=0, keepdims=True)  # computed but never used
        delta = delta @ self.w3.T
        delta[self.z2 < 0] = 0
        self.dw2 = self.a1.T @ delta
        self.db2 = np.sum(delta, axis=0, keepdims=True)  # computed but never used
        delta = delta @ self.w2.T
        delta[self.z1 < 0] = 0
        self.dw1 = self.x.T @ delta
        self.db1 = np.sum(delta, axis=0, keepdims=True)

    def update(self) -> None:
        self.dw3 += PENALTY * self.w3
        self.dw2 += PENALTY * self.w2
        self.dw1 += PENALTY * self.w1
        self.w3 = self.w3 - self.learning_rate * self.dw3
        self.b3 = self.b3 - self.learning_rate * self.b3  # should be db3
        self.w2 = self.w2 - self.learning_rate * self.dw2
        self.b2 = self.b2 - self.learning_rate * self.b2  # should be db2
        self.w1 = self.w1 - self.learning_rate * self.dw1
        self.b1 = self.b1 - self.learning_rate * self.db1
