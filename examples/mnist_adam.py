"""S9: handwritten digits with a deep network and Adam: 784-500-1000-300-10.

This is the tutorial's TensorFlow program: three ReLU layers and softmax, batches of 100, 13 epochs of Adam (Kingma and
Ba 2015) with a learning rate of 0.001:

    loss       L = -mean log p(true class),  p = softmax(z)
    moments    m <- 0.9 m + 0.1 g,  v <- 0.999 v + 0.001 g^2
    step       W <- W - rate * m^ / (sqrt(v^) + 1e-8), with both moments corrected for their start at zero

It is trained twice: with weights and biases from N(0, 1), as in the tutorial, and with He's initialisation (2015),
N(0, 2 / inputs).

Errors in the tutorial: weights from N(0, 1) are about twenty times too large for layers of this width, so the first
losses are in the tens of thousands, and training spends its epochs on reducing them. The loss printed for an epoch is
never reset to zero. Programs for TensorFlow 1 no longer run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import tools

import nnbackend as nn
from nnbackend import plotting

EPOCHS, BATCH = 13, 100


def train(start: nn.Initializer | None, data: nn.datasets.Dataset, options: tools.Options, epochs: int):
    """Train with Adam on softmax cross-entropy; if `start` is None, with He's weights and zero biases."""

    def line(metrics: Mapping[str, float]) -> str:
        # The sum over the batches of this epoch; the tutorial adds up all epochs.
        return f"{metrics['epoch'] - 1:.0f} : {metrics['loss'] * len(data.x_train) / BATCH:.4f}"

    starts = {} if start is None else {"weight_initializer": start, "bias_initializer": start}
    layers = [nn.Dense(units, activation="relu", **starts) for units in (500, 1000, 300)]
    network = nn.Network(
        [*layers, nn.Dense(len(data.classes), **starts)],
        data.input_shape, backend=options.backend, seed=options.seed,
    )  # fmt: skip
    print(tools.described(network))
    history = tools.fit(
        network, data.x_train, data.y_train, epochs=epochs, batch_size=BATCH, loss="softmax_cross_entropy",
        optimizer=nn.Adam(1e-3), validation_data=(data.x_test, data.y_test), callbacks=[tools.EachEpoch(line)],
    )  # fmt: skip
    return network, history


def run(options: tools.Options) -> dict[str, float]:
    """Train with both initialisations, and return both test accuracies."""
    data = nn.datasets.load("mnist-5k" if options.quick else "auto")
    print(data.notice or data)
    results: dict[str, float] = {}
    for name, start in (("N(0, 1)", nn.Normal(0.0, 1.0)), ("He", None)):
        print(f"\nweights from {name}")
        begin = time.perf_counter()
        network, history = train(start, data, options, 2 if options.quick else EPOCHS)
        results[f"{name} seconds"] = time.perf_counter() - begin
        results[name] = history["val_accuracy"][-1]
        print(f"accuracy: {100 * results[name]:.2f} % of {len(data.y_test):,}")

    if options.out is not None:
        options.save(plotting.plot_curves(history)[0], "curves")
        axes = plotting.plot_misclassified(data.x_test, data.y_test, network.predict_classes(data.x_test))
        options.save(axes, "misclassified")
    return results


if __name__ == "__main__":
    tools.main(run, __doc__)
