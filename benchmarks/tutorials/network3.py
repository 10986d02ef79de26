"""S13: two convolutions of 3 kernels with tanh, 2x2 max pools, ten sigmoids, on MNIST's digits; image by image.

Written from the description of the tutorial's network3.py, not from its text. Errors in the tutorial: the decay of the
kernels is commented out, so only the last layer's weights decay; and the error that comes back through a pool is not
multiplied by the derivative of tanh, so the kernels do not follow the gradient.
"""

from __future__ import annotations

import random
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.tutorials.result import Result, accuracy, one_hot
from nnbackend.datasets import Dataset, load

DECAY = 0.1
SIZE, MAPS, POOL = 5, 3, 2

Array = NDArray[np.float64]


def train(
    seed: int,
    *,
    epochs: int = 50,
    batch_size: int = 10,
    learning_rate: float = 0.05,
    data: Dataset | None = None,
) -> Result:
    """Train on `data`, by default 5,000 digits, without the costs and accuracies after every epoch."""
    data = data or load("mnist-5k")
    targets = one_hot(data.y_train, len(data.classes))
    samples = list(zip(images(data.x_train), targets[:, :, np.newaxis], strict=True))
    net = ConvNet(np.random.default_rng(seed), len(data.classes))
    shuffle = random.Random(seed).shuffle
    start = time.perf_counter()
    for _ in range(epochs):
        shuffle(samples)
        for first in range(0, len(samples), batch_size):
            net.update(samples[first : first + batch_size], learning_rate, DECAY / len(samples))
    seconds = time.perf_counter() - start
    predicted = [net.forward(x).argmax() for x in images(data.x_test)]
    return Result({"accuracy": accuracy(predicted, data.y_test)}, seconds)


def images(rows: NDArray[np.uint8]) -> Array:
    """Every image as one channel of pixels from 0 to 1, in float64."""
    return (rows / 255).reshape(-1, 1, 28, 28)


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def convolved(x: Array, kernels: Array, biases: Array) -> Array:
    """(channels, height, width) images with (filters, channels, SIZE, SIZE) kernels."""
    height, width = x.shape[1] - SIZE + 1, x.shape[2] - SIZE + 1
    z = np.empty((len(kernels), height, width))
    for f, kernel in enumerate(kernels):
        z[f] = biases[f]
        for row in range(SIZE):
            for column in range(SIZE):
                for channel in range(len(x)):
                    z[f] += kernel[channel, row, column] * x[channel, row : row + height, column : column + width]
    return z


def pooled(a: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The largest of every 2 x 2, and where it is."""
    windows = a.reshape(len(a), a.shape[1] // POOL, POOL, a.shape[2] // POOL, POOL)
    largest = windows.max(axis=(2, 4))
    return largest, windows == largest[:, :, np.newaxis, :, np.newaxis]


def spread(delta: Array, places: NDArray[np.bool_]) -> Array:
    """The error of a pool's inputs: that of its outputs, where the largest values are."""
    spread_out = places * delta[:, :, np.newaxis, :, np.newaxis]
    return spread_out.reshape(len(delta), delta.shape[1] * POOL, delta.shape[2] * POOL)  # should be times 1 - a^2


class ConvNet:
    def __init__(self, generator: np.random.Generator, classes: int) -> None:
        self.kernels = [
            generator.standard_normal((MAPS, channels, SIZE, SIZE)) / np.sqrt(channels * SIZE * SIZE)
            for channels in (1, MAPS)
        ]
        self.biases = [np.zeros(MAPS), np.zeros(MAPS)]
        inputs = MAPS * 4 * 4
        self.w = generator.standard_normal((classes, inputs)) / np.sqrt(inputs)
        self.b = np.zeros((classes, 1))

    def forward(self, x: Array) -> Array:
        self.inputs, self.places = [], []
        for kernels, biases in zip(self.kernels, self.biases, strict=True):
            self.inputs.append(x)
            x, places = pooled(np.tanh(convolved(x, kernels, biases)))
            self.places.append(places)
        self.flat = x.reshape(-1, 1)
        return sigmoid(self.w @ self.flat + self.b)

    def gradients(self, x: Array, y: Array) -> tuple[list[Array], list[Array], Array, Array]:
        """Of the cross-entropy of one image: of the kernels and their biases (wrong), weights and biases (right)."""
        delta = self.forward(x) - y
        dw, db = delta @ self.flat.T, delta
        back = (self.w.T @ delta).reshape(MAPS, 4, 4)
        dk, dbias = [np.empty(0)] * 2, [np.empty(0)] * 2
        for layer in (1, 0):
            delta = spread(back, self.places[layer])
            dbias[layer] = delta.sum(axis=(1, 2))
            dk[layer], back = self.kernel_gradient(layer, delta)
        return dk, dbias, dw, db

    def kernel_gradient(self, layer: int, delta: Array) -> tuple[Array, Array]:
        """The gradient of a layer's kernels, and the error of its inputs."""
        x, kernels = self.inputs[layer], self.kernels[layer]
        height, width = delta.shape[1:]
        dk, back = np.empty_like(kernels), np.zeros_like(x)
        for f in range(MAPS):
            for channel in range(len(x)):
                for row in range(SIZE):
                    for column in range(SIZE):
                        window = np.s_[channel, row : row + height, column : column + width]
                        dk[f, channel, row, column] = np.sum(delta[f] * x[window])
                        back[window] += kernels[f, channel, row, column] * delta[f]
        return dk, back

    def update(self, batch: list[tuple[Array, Array]], learning_rate: float, decay: float) -> None:
        rate = learning_rate / len(batch)
        sums = [self.gradients(x, y) for x, y in batch]
        for layer in (0, 1):
            # The decay of the kernels is commented out.
            self.kernels[layer] = self.kernels[layer] - rate * sum(dk[layer] for dk, _, _, _ in sums)
            self.biases[layer] = self.biases[layer] - rate * sum(dbias[layer] for _, dbias, _, _ in sums)
        self.w = (1 - learning_rate * decay) * self.w - rate * sum(dw for _, _, dw, _ in sums)
        self.b = self.b - rate * sum(db for _, _, _, db in sums)
