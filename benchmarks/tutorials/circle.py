"""S1, the circle: a 2-100-200-100-2 ReLU network, "demands" in place of gradients; is a point outside the unit circle?

Errors in the tutorial: its demands are not gradients (-1 and 1 for every wrong row regardless of the error, 0 for
correct rows; each row of every matrix is divided by its largest magnitude), so most steps make the batch worse and are
undone; every batch is trained twice; a round ends at the first batch with at most 10 % wrong, which soon happens by
chance, so the network stays near 90 %; if that is the first batch of the round, the tutorial divides by zero. Some
lines are truncated in the tutorial and reconstructed here from the context.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.tutorials.circle_network import Array, Network
from benchmarks.tutorials.result import Result, accuracy
from nnbackend.datasets import Dataset, load

BATCH_SIZE = 30
GOOD_ENOUGH = 0.1
FORCE_BELOW = 0.05

Uniform = Callable[[float, float], float]


def train(
    seed: int,
    *,
    points: Sequence[int] = (2_500, 3_000, 3_000, 1_000),
    candidates: int = 1,
    data: Dataset | None = None,
) -> Result:
    """Train one round for each number of `points`, by default those of the tutorial.

    The tutorial draws networks until the user accepts the picture of one; its author accepted the first. Here the best
    of `candidates` on 1,000 points is used. Only the test points of `data` are used: training points are drawn one by
    one, which is included in the time.
    """
    data = data or load("circle")
    generator, uniform = np.random.default_rng(seed), random.Random(seed).uniform
    x, labels = draw(1_000, uniform)
    networks = [Network(generator) for _ in range(candidates)]
    network = max(networks, key=lambda candidate: accuracy(candidate.predict(x), labels))
    figures = {"start_accuracy": accuracy(network.predict(data.x_test), data.y_test)}
    start = time.perf_counter()
    trainer = Trainer(network, uniform)
    for round_points in points:
        trainer.train_round(round_points)
    seconds = time.perf_counter() - start
    network = trainer.network
    figures |= {"accuracy": accuracy(network.predict(data.x_test), data.y_test), "steps": float(trainer.steps)}
    return Result(figures, seconds)


def draw(count: int, uniform: Uniform) -> tuple[Array, NDArray[np.int_]]:
    """Points of the square [-2, 2]^2, and whether each is outside the unit circle."""
    points, labels = [], []
    for _ in range(count):
        x, y = uniform(-2, 2), uniform(-2, 2)
        points.append([x, y])
        labels.append(1 if x**2 + y**2 > 1 else 0)
    return np.array(points), np.array(labels)


class Trainer:
    def __init__(self, network: Network, uniform: Uniform) -> None:
        self.network, self.uniform, self.force, self.steps = network, uniform, False, 0

    def train_round(self, points: int) -> None:
        self.improved = self.worse = 0
        for _ in range(points // BATCH_SIZE + 1):
            batch = draw(BATCH_SIZE, self.uniform)
            self.train_batch(*batch)
            if not self.train_batch(*batch):  # twice, because the tutorial calls it again to read its result
                break
        # A forced step that makes the batch worse is not counted. If nothing is counted, the tutorial divides by zero.
        counted = self.improved + self.worse
        self.force = counted > 0 and self.improved / counted <= FORCE_BELOW

    def train_batch(self, x: Array, labels: NDArray[np.int_]) -> bool:
        """Whether the batch needed training."""
        targets = np.eye(2)[labels]
        outputs = self.network.outputs(x)
        doubt, wrong = losses(outputs[-1], targets)
        if wrong <= GOOD_ENOUGH:
            return False
        new = self.network.stepped(outputs, targets)
        new_doubt, new_wrong = losses(new.outputs(x)[-1], targets)
        better = new_doubt <= doubt or new_wrong <= wrong
        self.improved += better
        self.worse += not better and not self.force
        if better or self.force:
            self.network = new
        self.steps += 1
        return True


def losses(predicted: Array, targets: Array) -> tuple[float, float]:
    """The mean of 1 - p(true class), and the fraction of wrong rows."""
    doubt = 1 - np.sum(predicted * targets, axis=1)
    wrong = 1 - np.sum(np.where(predicted > 0.5, 1, 0) * targets, axis=1)
    return float(doubt.mean()), float(wrong.mean())
