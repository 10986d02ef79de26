"""S10: support vector regression on the raw labels of MNIST, rounded; scikit-learn.

Errors in the tutorial: digits are names, not quantities. A regression puts what looks half like a 1 and half like a 7
at 4, so it gets 40.23 % right, where a support vector classifier gets about 98 %. The scikit-learn of its day took
gamma = 1 / 784, now called "auto"; today's default, "scale", does better. It predicts image by image, which is slow as
well, but is not training and not timed.
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
    """Train on `images` of `data`, by default MNIST, drawn by `seed`; test on the first `test_images`, or all.

    The tutorial takes all 60,000; the time grows with the square of the number.
    """
    from sklearn.svm import SVR  # here: asv imports this module, and need not have scikit-learn

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
