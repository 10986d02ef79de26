"""S9, the TensorFlow net: 784-500-1000-300-10, ReLU, softmax cross-entropy, Adam, N(0, 1) weights, on MNIST.

TensorFlow 1 is obsolete, so its graph is reimplemented in float32 NumPy with the same arithmetic.

Errors in the tutorial: weights of N(0, 1) cause logits of tens of thousands, so the loss starts near 60,000 and the
final accuracy is lower than with scaled weights; the loss printed for an epoch is never reset to zero, so it is the sum
since the first step ("printed_loss" below). Its loader reserves the first 5,000 images for a validation that is never
done, so it trains on 55,000.
"""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.tutorials.result import Result, accuracy, one_hot
from nnbackend.datasets import Dataset, load

LEARNING_RATE = 1e-3
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

Array = NDArray[np.float32]


def train(
    seed: int,
    *,
    epochs: int = 13,
    batch_size: int = 100,
    hidden: tuple[int, ...] = (500, 1000, 300),
    held_out: int = 5_000,
    data: Dataset | None = None,
) -> Result:
    """Train on `data`, by default MNIST, without the first `held_out` images."""
    data = data or load("mnist")
    x, y = scaled(data.x_train[held_out:]), one_hot(data.y_train[held_out:], len(data.classes)).astype(np.float32)
    generator = np.random.default_rng(seed)
    net = DeepNet(generator, (data.input_shape, *hidden, len(data.classes)))
    steps = len(x) // batch_size
    printed_loss = loss = 0.0
    start = time.perf_counter()
    for _ in range(epochs):
        order = generator.permutation(len(x))
        x, y = x[order], y[order]  # TensorFlow's loader also copies the whole set
        before = printed_loss
        for step in range(steps):
            batch = slice(step * batch_size, (step + 1) * batch_size)
            printed_loss += net.step(x[batch], y[batch])
        loss = (printed_loss - before) / steps
    seconds = time.perf_counter() - start
    test_accuracy = accuracy(net.forward(scaled(data.x_test))[-1].argmax(axis=1), data.y_test)
    return Result({"accuracy": test_accuracy, "loss": loss, "printed_loss": printed_loss}, seconds)


def scaled(images: NDArray[np.uint8]) -> Array:
    return images.astype(np.float32) / np.float32(255)


class DeepNet:
    def __init__(self, generator: np.random.Generator, sizes: tuple[int, ...]) -> None:
        shapes = list(pairwise(sizes))
        self.weights = [generator.standard_normal(shape, np.float32) for shape in shapes]
        self.biases = [generator.standard_normal(outputs, np.float32) for _, outputs in shapes]
        self.adam = Adam([*self.weights, *self.biases])

    def forward(self, x: Array) -> list[Array]:
        """The input, the outputs of the hidden layers, the logits."""
        outputs = [x]
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            outputs.append(np.maximum(outputs[-1] @ w + b, 0))
        return [*outputs, outputs[-1] @ self.weights[-1] + self.biases[-1]]

    def step(self, x: Array, y: Array) -> float:
        """Take a step; returns the cross-entropy before it."""
        *outputs, logits = self.forward(x)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        loss = -(y * log_probabilities).sum(axis=1).mean()
        delta = (np.exp(log_probabilities) - y) / np.float32(len(x))
        dw, db = [], []
        for layer in reversed(range(len(self.weights))):
            dw.insert(0, outputs[layer].T @ delta)
            db.insert(0, delta.sum(axis=0))
            if layer > 0:
                delta = (delta @ self.weights[layer].T) * (outputs[layer] > 0)
        self.adam.update([*dw, *db])
        return float(loss)


class Adam:
    """Adam as in TensorFlow 1: epsilon is added before the bias correction of the second moment."""

    def __init__(self, parameters: list[Array]) -> None:
        self.parameters = parameters
        self.means = [np.zeros_like(parameter) for parameter in parameters]
        self.squares = [np.zeros_like(parameter) for parameter in parameters]
        self.steps = 0

    def update(self, gradients: list[Array]) -> None:
        self.steps += 1
        rate = LEARNING_RATE * (1 - BETA_2**self.steps) ** 0.5 / (1 - BETA_1**self.steps)
        for parameter, mean, square, gradient in zip(self.parameters, self.means, self.squares, gradients, strict=True):
            mean += (1 - BETA_1) * (gradient - mean)
            square += (1 - BETA_2) * (gradient * gradient - square)
            parameter -= rate * mean / (np.sqrt(square) + EPSILON)
