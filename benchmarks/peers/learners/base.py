"""The interface of learners, and the recipes that all of them use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import nnbackend as nn
from benchmarks.peers.works import Work

__all__ = ["RECIPES", "TARGET", "Learner", "Note", "Recipe"]

#: Test accuracy to be reached.
TARGET = 0.98

#: Called with the test accuracy after every epoch; returns True to stop.
Note = Callable[[float], bool]


@dataclass(frozen=True)
class Recipe:
    """Adam with one cycle of the learning rate: linear up to the peak, then half a cosine down to zero.

    Attributes
    ----------
    work : Work
        The network, the batch size, and the peak rate.
    epochs : int
    seed : int
        Seed of weights and orders.
    """

    work: Work
    epochs: int
    seed: int = 0

    @property
    def rise(self) -> float:
        """Number of epochs until the peak."""
        return 0.3 * self.epochs

    def schedule(self) -> nn.Schedule:
        """The rate over the epochs."""
        falling = nn.CosineDecay(self.work.learning_rate, self.epochs - self.rise)
        return nn.Warmup(self.rise, falling, start=0.04)


#: Recipes by name. The first was the fastest of two dozen for PyTorch, which is faster with large batches; the second
#: suits libraries with little overhead per step.
RECIPES = {
    "large batches": Recipe(Work("784-200-80-10", (200, 80), "relu", 256, "adam", 6e-3), 8),
    "small batches": Recipe(Work("784-160-64-10", (160, 64), "relu", 128, "adam", 5e-3), 5),
}


class Learner(ABC):
    """A library that trains one network."""

    @abstractmethod
    def load(self, data: nn.datasets.Dataset, recipe: Recipe) -> None:
        """Convert the images for the library, and build the network."""

    @abstractmethod
    def warm_up(self) -> None:
        """Compile everything without changing the network."""

    @abstractmethod
    def train(self, note: Note) -> None:
        """Train, and report the test accuracy after every epoch."""
