"""What the benchmark asks of a learner, and the recipes that all of them follow."""

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
    """Adam with one cycle of the learning rate: a straight line up to the peak, half a cosine down to nothing.

    Attributes
    ----------
    work : Work
        The net, the batch, and the peak.
    epochs : int
    seed : int
        Of weights and orders.
    """

    work: Work
    epochs: int
    seed: int = 0

    @property
    def rise(self) -> float:
        """Epochs until the peak."""
        return 0.3 * self.epochs

    def schedule(self) -> nn.Schedule:
        """The rate over the epochs."""
        falling = nn.CosineDecay(self.work.learning_rate, self.epochs - self.rise)
        return nn.Warmup(self.rise, falling, start=0.04)


#: By name. The first was the fastest of two dozen for PyTorch, which likes large batches; the second is for those who
#: pay little for a step.
RECIPES = {
    "large batches": Recipe(Work("784-200-80-10", (200, 80), "relu", 256, "adam", 6e-3), 8),
    "small batches": Recipe(Work("784-160-64-10", (160, 64), "relu", 128, "adam", 5e-3), 5),
}


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
