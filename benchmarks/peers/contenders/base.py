"""The interface between the benchmark and a library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.data import Weights
from benchmarks.peers.works import Work

__all__ = ["Contender", "Predictor", "Training"]

#: Takes a number of rows; returns their logits, (rows, classes).
Predictor = Callable[[int], NDArray[np.float32]]


class Training(ABC):
    """A network in training."""

    @abstractmethod
    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        """Train on the given rows, (steps, batch_size), and return the loss of every step. Called once, before the
        other methods."""

    @abstractmethod
    def shuffle(self) -> None:
        """Draw the order of an epoch. Its time counts in proportion to the trained part of the epoch."""

    @abstractmethod
    def run(self, steps: int) -> None:
        """Run steps from the start of the epoch, and wait for their end."""


class Contender(ABC):
    """A library in its worker.

    Parameters
    ----------
    threads : int
        Number of threads; the worker is bound to the same number of cores.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        """Convert the images to the form with which the library trains fastest. Not timed."""
        self.x, self.y = x, y

    def predictor(self, work: Work, weights: Weights) -> Predictor:
        """A function that takes a number of rows and predicts that many images, which are float32 from 0 to 1."""
        raise NotImplementedError(f"{type(self).__name__} has no predictions")

    @abstractmethod
    def build(self, work: Work, weights: Weights) -> Training:
        """A network with these weights, ready for training."""
