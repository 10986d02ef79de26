"""What the benchmark asks of a learner, and the recipe that all of them follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import nnbackend as nn
from benchmarks.peers.works import Work

__all__ = ["NET", "TARGET", "Learner", "Note", "Recipe"]

#: Test accuracy to be reached.
TARGET = 0.98

NET = Work("784-200-80-10", (200, 80), "relu", 256, "adam", 6e-3)

#: Told the test accuracy after every epoch; True to stop.
Note = Callable[[float], bool]


@dataclass(frozen=True)
class Recipe:
    """Adam with one cycle of the learning rate: a straight line up to the peak, half a cosine down to nothing.

    Of two dozen recipes the one with which PyTorch was first at 98 %.

    Attributes
    ----------
    epochs : int
    seed : int
        Of weights and orders.
    """

    epochs: int = 8
    seed: int = 0

    @property
    def rise(self) -> float:
        """Epochs until the peak."""
        return 0.3 * self.epochs

    def schedule(self) -> nn.Schedule:
        """The rate over the epochs."""
        return nn.Warmup(self.rise, nn.CosineDecay(NET.learning_rate, self.epochs - self.rise), start=0.04)


class Learner(ABC):
    """A library that trains one net."""

    @abstractmethod
    def load(self, data: nn.datasets.Dataset, recipe: Recipe) -> None:
        """Bring the images into the library's form, and build the net."""

    @abstractmethod
    def warm_up(self) -> None:
        """Compile what is to be compiled, leaving the net as it is."""

    @abstractmethod
    def train(self, note: Note) -> None:
        """Train, and after every epoch test and tell."""
