"""S10: support vector regression on the raw labels of MNIST, rounded; scikit-learn.

Errors in the tutorial: digits are names, not quantities. A regression predicts 4 for an image between a 1 and a 7, so
it reaches 40.23 %, where a support vector classifier reaches about 98 %. The default at that time was gamma = 1 / 784,
now called "auto"; today's default, "scale", is better. It predicts image by image, which is also slow, but not part of
the timed training.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.tutorials.result import Result, accuracy
from nnbackend.datasets import Dataset, load


def train(
    seed: int,
    *,
    images: int = 5_000,
    test_images: int | None = None,
    gamma: str = "auto",
    data: Dataset | None = None,
) -> Result:
    """Train on `images` random images of `data`, by default MNIST; test on the first `test_images`, or all.

    The tutorial uses all 60,000; the time grows quadratically with the number.
    """
    from sklearn.svm import SVR  # here, because asv imports this module and may not have scikit-learn

    data = data or load("mnist")
    rows = np.random.default_rng(seed).permutation(len(data.x_train))[:images]
    x, y = data.x_train[rows] / 255, data.y_train[rows]
    machine = SVR(gamma=gamma)
    start = time.perf_counter()
    machine.fit(x, y)
    seconds = time.perf_counter() - start
    predicted = np.rint(machine.predict(data.x_test[:test_images] / 255))
    figures = {"accuracy": accuracy(predicted, data.y_test[:test_images]), "images": float(len(x))}
    return Result(figures, seconds)
