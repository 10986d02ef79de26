"""What the benchmark asks of a library."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.data import Weights
from benchmarks.peers.works import Work

__all__ = ["Contender", "Training"]


class Training(ABC):
    """One net in training."""

    @abstractmethod
    def losses(self, batches: NDArray[np.int64]) -> list[float]:
        """Train on the rows given, (steps, batch_size), and return every step's loss. Called once, first of all."""

    @abstractmethod
    def shuffle(self) -> None:
        """Draw the order of an epoch. Its time counts by the share of the epoch that is trained after it."""

    @abstractmethod
    def run(self, steps: int) -> None:
        """Take some steps from the start of the epoch, and wait until they are done."""


class Contender(ABC):
    """A library, as a worker holds it.

    Parameters
    ----------
    threads : int
        On which it runs; the worker has been bound to as many cores.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def load(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
        """Bring the images into the form in which the library trains on them fastest. Its time does not count."""
        self.x, self.y = x, y

    @abstractmethod
    def build(self, work: Work, weights: Weights) -> Training:
        """A net with these weights, ready to be trained."""
