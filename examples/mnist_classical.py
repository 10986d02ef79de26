"""S10: how good are classical models on MNIST, and how long do they take?

Softmax regression, a linear SVM, an SVM with the kernel exp(-gamma |x - y|^2), and nearest neighbours, all from
scikit-learn, compared with three networks on the same training and test images, with pixels scaled to 0..1.

    softmax regression    p = softmax(x W + b), cross-entropy
    linear SVM            squared hinge loss max(0, 1 - t z)^2, one class against the rest
    RBF SVM               the same margin in the kernel's space, one class against another
    nearest neighbours    the majority class of the 3 nearest images

Errors in the tutorial: it fits a regression to the digits as numbers and rounds the result, as if a 4 were nearer to a
5 than to a 9, and reaches 40.23 %; it should use a classifier. The table includes the same regression, on as many
images as its time allows, with the kernel width that was the default at that time, gamma = 1 / features.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import tools

import nnbackend as nn
from nnbackend import plotting

#: Images for the regression, whose time grows quadratically.
REGRESSION_IMAGES = 5_000
#: Images for scikit-learn's models with --quick.
QUICK_IMAGES = 1_000
#: Width of the first column.
WIDTH = 39


def classical(seed: int) -> dict[str, Any]:
    """scikit-learn's models, with settings that work well on MNIST."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC, LinearSVC

    return {
        "softmax regression": LogisticRegression(C=0.01, tol=1e-3, max_iter=200),
        "linear SVM": LinearSVC(C=0.003, dual=True, tol=1e-2, max_iter=200, random_state=seed),
        "3 nearest neighbours": KNeighborsClassifier(3, algorithm="brute"),
        "RBF SVM": SVC(C=5, gamma=0.02, cache_size=1000),
    }


def networks(data: nn.datasets.Dataset, options: tools.Options) -> dict[str, Callable[[], nn.Network]]:
    """Functions that train our networks."""

    def trained(units: tuple[int, ...], epochs: int) -> nn.Network:
        epochs = min(epochs, 8) if options.quick else epochs
        layers = [nn.Dense(size, activation="relu") for size in units]
        if len(units) > 1:
            layers = [layer for dense in layers for layer in (dense, nn.Dropout(0.2))]
        network = nn.Network(
            [*layers, nn.Dense(len(data.classes))], data.input_shape, backend=options.backend, seed=options.seed
        )
        tools.fit(
            network, data.x_train, data.y_train, epochs=epochs, batch_size=128, loss="softmax_cross_entropy",
            optimizer=nn.Adam(nn.CosineDecay(2e-3, epochs=epochs)),
        )  # fmt: skip
        return network

    return {
        "784-40-10": lambda: trained((40,), 8),
        "784-200-80-10": lambda: trained((200, 80), 16),
        "784-500-300-10": lambda: trained((500, 300), 16),
    }


def run(options: tools.Options) -> dict[str, dict[str, float]]:
    """Train and evaluate all models: accuracy, seconds to train, seconds to predict the test set."""
    if find_spec("sklearn") is None:
        raise ImportError(
            'the classical models need scikit-learn: pip install -e ".[demo]" in your checkout of nnbackend'
        )
    data = nn.datasets.load("mnist-5k" if options.quick else "auto")
    print(data.notice or data)
    x_train, x_test = (images.astype(np.float32) / 255 for images in (data.x_train, data.x_test))
    table: dict[str, dict[str, float]] = {}

    def judge(name: str, fit: Callable[[], Any], predict: Callable[[Any], np.ndarray]) -> None:
        begin = time.perf_counter()
        model = fit()
        trained = time.perf_counter()
        predicted = predict(model)
        seconds = time.perf_counter() - trained
        accuracy = nn.metrics.accuracy(data.y_test, predicted)
        table[name] = {"accuracy": accuracy, "train": trained - begin, "predict": seconds}
        print(f"{name:{WIDTH}} {100 * accuracy:10.2f} {trained - begin:10.2f} {seconds:10.3f}", flush=True)

    print(f"\n{'model':{WIDTH}} {'accuracy %':>10} {'train s':>10} {'predict s':>10}")
    judge(*regression(x_train, data.y_train, x_test, options))
    few = slice(QUICK_IMAGES if options.quick else None)
    for name, model in classical(options.seed).items():
        judge(name, lambda model=model: model.fit(x_train[few], data.y_train[few]), lambda model: model.predict(x_test))
    for name, train in networks(data, options).items():
        judge(f"ours: {name}", train, lambda network: network.predict_classes(data.x_test))

    if options.out is not None:
        options.save(comparison(table, len(x_test)), "comparison")
    return table


def comparison(table: dict[str, dict[str, float]], images: int) -> Any:
    """Plot accuracy, training time and prediction time as bars."""
    panels = tools.axes(3, width=5.2)
    for axes, key, label, factor in (
        (panels[0], "accuracy", "test accuracy (%)", 100),
        (panels[1], "train", "time to train (s)", 1),
        (panels[2], "predict", f"time to predict {images:,} images (s)", 1),
    ):
        values = {name: factor * row[key] for name, row in table.items()}
        plotting.plot_bars(values, ax=axes, label=label, log=key != "accuracy")
    return panels[0]


def regression(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, options: tools.Options) -> tuple[Any, ...]:
    """The tutorial's model: a regression of the digit as a number, rounded and clipped to 0..9."""
    from sklearn.svm import SVR

    count = 500 if options.quick else REGRESSION_IMAGES

    def predict(model: SVR) -> np.ndarray:
        return np.clip(np.rint(model.predict(x_test)), 0, 9).astype(int)

    # gamma="auto" is 1 / features, scikit-learn's default when the tutorial was written.
    model = SVR(gamma="auto")
    return f"SVM regression, rounded ({count:,} images)", lambda: model.fit(x_train[:count], y_train[:count]), predict


if __name__ == "__main__":
    tools.main(run, __doc__)
