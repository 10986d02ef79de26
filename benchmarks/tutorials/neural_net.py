"""S8, NeuralNet: 784-40-10, sigmoid, squared error, N(0, 1) weights, on MNIST; backpropagation sample by sample.

Errors in the tutorial: none, but it is slow, because a batch is a Python loop over single samples; weights of N(0, 1)
saturate the sigmoids at the start, and with batches of 100 some digits are often never learned. Lines missing from the
tutorial are taken from its source, M. Nielsen's "Neural Networks and Deep Learning": the samples are shuffled every
epoch (the text still has an otherwise unused `import random`).
"""

from __future__ import annotations

import random
import time
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.tutorials.result import Result, accuracy, one_hot
from nnbackend.datasets import Dataset, load

Array = NDArray[np.float64]


def train(
    seed: int,
    *,
    epochs: int = 13,
    batch_size: int = 100,
    learning_rate: float = 3.0,
    hidden: int = 40,
    data: Dataset | None = None,
) -> Result:
    """Train on `data`, by default MNIST, without the tutorial's test after every epoch."""
    data = data or load("mnist")
    targets = one_hot(data.y_train, len(data.classes))
    samples = list(zip(columns(data.x_train), targets[:, :, np.newaxis], strict=True))
    net = NeuralNet(np.random.default_rng(seed), (data.input_shape, hidden, len(data.classes)))
    shuffle = random.Random(seed).shuffle
    start = time.perf_counter()
    for _ in range(epochs):
        shuffle(samples)
        for first in range(0, len(samples), batch_size):
            net.update(samples[first : first + batch_size], learning_rate)
    seconds = time.perf_counter() - start
    predicted = [net.forward(x).argmax() for x in columns(data.x_test)]
    return Result({"accuracy": accuracy(predicted, data.y_test)}, seconds)


def columns(images: NDArray[np.uint8]) -> Array:
    """Every image as a column of pixels from 0 to 1, in float64."""
    return (images / 255)[:, :, np.newaxis]


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def sigmoid_derivative(z: Array) -> Array:
    return sigmoid(z) * (1 - sigmoid(z))  # three sigmoids per layer, including the forward pass


class NeuralNet:
    def __init__(self, generator: np.random.Generator, sizes: tuple[int, ...]) -> None:
        self.weights = [generator.standard_normal((y, x)) for x, y in pairwise(sizes)]
        self.biases = [generator.standard_normal((y, 1)) for y in sizes[1:]]

    def forward(self, x: Array) -> Array:
        for w, b in zip(self.weights, self.biases, strict=True):
            x = sigmoid(w @ x + b)
        return x

    def gradients(self, x: Array, y: Array) -> tuple[list[Array], list[Array]]:
        """Gradients of the squared error of one sample, for the weights and the biases."""
        activations, zs = [x], []
        for w, b in zip(self.weights, self.biases, strict=True):
            zs.append(w @ activations[-1] + b)
            activations.append(sigmoid(zs[-1]))
        # Zeros, all replaced below.
        dw = [np.zeros(w.shape) for w in self.weights]
        db = [np.zeros(b.shape) for b in self.biases]
        delta = (activations[-1] - y) * sigmoid_derivative(zs[-1])
        dw[-1], db[-1] = delta @ activations[-2].T, delta
        for layer in range(2, len(zs) + 1):
            delta = self.weights[-layer + 1].T @ delta * sigmoid_derivative(zs[-layer])
            dw[-layer], db[-layer] = delta @ activations[-layer - 1].T, delta
        return dw, db

    def update(self, batch: list[tuple[Array, Array]], learning_rate: float) -> None:
        dw = [np.zeros(w.shape) for w in self.weights]
        db = [np.zeros(b.shape) for b in self.biases]
        for x, y in batch:
            sample_dw, sample_db = self.gradients(x, y)
            dw = [total + sample for total, sample in zip(dw, sample_dw, strict=True)]
            db = [total + sample for total, sample in zip(db, sample_db, strict=True)]
        rate = learning_rate / len(batch)
        self.weights = [w - rate * gradient for w, gradient in zip(self.weights, dw, strict=True)]
        self.biases = [b - rate * gradient for b, gradient in zip(self.biases, db, strict=True)]
