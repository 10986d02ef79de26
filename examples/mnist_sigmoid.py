"""S8: handwritten digits with 784-40-10 sigmoids and the squared error.

    forward    a = sigmoid(x W + b), twice; pixels scaled to 0..1
    error      E = 1/2 sum (a - t)^2, the mean over a batch; t is 1 for the digit and 0 for the nine others
    backward   delta = (a - t) a (1 - a), and so on backwards
    step       W <- W - rate dE/dW, with a rate of 3.0

Weights and biases start from N(0, 1). Our mean squared error is the mean over the ten outputs, which is E / 5, so the
same step needs five times the rate: 15.

With this initialisation, some digits may never be learned, because their output saturates at 0. How many depends on the
seed and even on the last bits of float32, so the same seed may give different results on two backends. Batches of 10
take ten times as many steps as batches of 100 and fail on fewer digits; both are trained. The trained network is saved,
loaded and evaluated again.

Errors in the tutorial: it loops over the images in Python, although a batch is one matrix product. Lines are missing
from its text, and saving and loading are left to the reader.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import tools

import nnbackend as nn
from nnbackend import plotting

EPOCHS = 13


def train(batch_size: int, data: nn.datasets.Dataset, options: tools.Options, epochs: int):
    """Train with plain gradient descent on the squared error."""

    def line(metrics: Mapping[str, float]) -> str:
        right = round(metrics["val_accuracy"] * len(data.y_test))
        return f"Epoch {metrics['epoch'] - 1:.0f}: {right} / {len(data.y_test)}"

    wide = nn.Normal(0.0, 1.0)
    starts = {"weight_initializer": wide, "bias_initializer": wide}
    network = nn.Network(
        [nn.Dense(40, activation="sigmoid", **starts), nn.Dense(10, activation="sigmoid", **starts)],
        data.input_shape, backend=options.backend, seed=options.seed,
    )  # fmt: skip
    print(tools.described(network))
    history = tools.fit(
        network, data.x_train, data.y_train, epochs=epochs, batch_size=batch_size, loss="mean_squared_error",
        optimizer=nn.SGD(15.0), validation_data=(data.x_test, data.y_test), callbacks=[tools.EachEpoch(line)],
    )  # fmt: skip
    return network, history


def run(options: tools.Options) -> dict[str, float]:
    """Train with batches of 100 and of 10, and return both test accuracies."""
    data = nn.datasets.load("mnist-5k" if options.quick else "auto")
    print(data.notice or data)
    results: dict[str, float] = {}
    for batch_size in (100, 10):
        print(f"\nbatches of {batch_size}")
        begin = time.perf_counter()
        network, history = train(batch_size, data, options, 5 if options.quick else EPOCHS)
        seconds = time.perf_counter() - begin
        results[f"batch {batch_size}"] = history["val_accuracy"][-1]
        results[f"seconds, batch {batch_size}"] = seconds

    predicted = network.predict_classes(data.x_test)
    print(f"\naccuracy: {100 * results['batch 10']:.2f} %; the first ten digits: {predicted[:10]}")
    if options.out is not None:
        path = options.folder / "digits.safetensors"
        network.save(path)
        again = nn.Network.load(path, backend=options.backend)
        assert np.array_equal(again.predict(data.x_test), network.predict(data.x_test))
        print(f"saved to {path}, loaded, and it predicts the same")
        matrix = nn.metrics.confusion_matrix(data.y_test, predicted, 10)
        options.save(plotting.plot_confusion(matrix, classes=data.classes), "confusion")
        options.save(plotting.plot_accuracy(history), "accuracy")
        axes = plotting.plot_weights(network)
        axes.set_title("The 40 hidden units: N(0, 1), and what was learned")
        options.save(axes, "weights")
    return results


if __name__ == "__main__":
    tools.main(run, __doc__)
