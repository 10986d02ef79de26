"""Images, labels, initial weights and orders, the same in every process."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

import nnbackend as nn
from benchmarks import common
from benchmarks.peers.works import Work
from nnbackend.errors import DataError

__all__ = ["Weights", "batches", "images", "initial_weights", "scaled"]

#: Weights, (inputs, outputs) or (height, width, inputs, outputs), and bias, (outputs,), of every layer that has them.
Weights = list[tuple[NDArray[np.float32], NDArray[np.float32]]]

_SEED = 20240229


def images(rows: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """MNIST's training images and labels if they are on this machine, else synthetic ones, and a description.

    Returns
    -------
    x : (rows, 784) uint8
    y : (rows,) int64
    source : str
    """
    try:
        data = nn.datasets.load("mnist", download=False)
    except DataError:
        x, y = common.images(rows)
        return x, y, "random bytes with random labels, because MNIST is not on this machine"
    return data.x_train[:rows], data.y_train[:rows].astype(np.int64), "MNIST"


def scaled(x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels from 0 to 1, for libraries that are fastest with scaled images."""
    return np.multiply(x, np.float32(1 / 255), dtype=np.float32)


def initial_weights(work: Work, seed: int = 0) -> Weights:
    """Normal weights after He et al. (2015), biases of zero."""
    generator = np.random.default_rng([_SEED, seed])
    return [
        (
            generator.standard_normal(shape, np.float32) * np.float32((2 / math.prod(shape[:-1])) ** 0.5),
            np.zeros(shape[-1], np.float32),
        )
        for shape in work.weights
    ]


def batches(work: Work, steps: int) -> NDArray[np.int64]:
    """The rows of the first batches of an epoch, (steps, batch_size), the same for all contenders."""
    order = np.random.default_rng(_SEED).permutation(work.rows)
    return order[: steps * work.batch_size].reshape(steps, work.batch_size)
