"""S4: three species of iris from four lengths, by a 4-20-20-3 network.

Two ReLU layers and softmax; every one of ten thousand steps sees all 120 flowers (full batch), at a rate of 0.05 with
an L2 penalty of 0.001. After every 100 steps the network is judged on the training set, and the best is kept: the
loss of plain gradient descent at this rate jumps about, so the last network need not be it.

    loss      L = -mean log p(true class) + (l2 / 2) sum W^2,  p = softmax(z)
    kept      the weights with the highest training accuracy so far, the latest of equals

Softmax regression, the same without hidden layers, is trained beside it.

Where the tutorial errs: as in S3, the biases of the upper two layers never see their gradient. It starts from weights
of 0.01 N(0, 1), with which the signal of two hidden layers all but vanishes, and thousands of steps pass before
anything happens; here He's initialisation takes their place. Its 98.33 % and 100 % are those of one split; on ours its
algorithm reaches 97.5 % in training with every seed.
"""

from __future__ import annotations

import time

import tools

import nnbackend as nn
from nnbackend import plotting

L2 = 1e-3
EPOCHS, STEPS = 100, 100


def train(hidden: tuple[int, ...], data: nn.datasets.Dataset, options: tools.Options) -> tuple[nn.Network, nn.History]:
    """Full-batch gradient descent; the network that was best on the training set."""
    layers = [*(nn.Dense(units, activation="relu", l2=L2) for units in hidden), nn.Dense(len(data.classes), l2=L2)]
    network = nn.Network(layers, data.input_shape, backend=options.backend, seed=options.seed, dtype="float64")
    history = tools.fit(
        network, data.x_train, data.y_train, epochs=EPOCHS // 5 if options.quick else EPOCHS, steps_per_epoch=STEPS,
        batch_size=len(data.x_train), shuffle=False, loss="softmax_cross_entropy", optimizer=nn.SGD(0.05),
        # After every epoch, and on the training set itself: that is what decides which network is best.
        validation_data=(data.x_train, data.y_train), callbacks=[nn.KeepBest("val_accuracy")],
    )  # fmt: skip
    return network, history


def run(options: tools.Options) -> dict[str, float]:
    """Train both, and return their accuracies."""
    data = nn.datasets.load("iris")
    begin = time.perf_counter()
    network, history = train((20, 20), data, options)
    seconds = time.perf_counter() - begin
    print(tools.described(network))
    for epoch in range(9, len(history), 10):
        figures = history.epochs[epoch]
        accuracy = 100 * figures["val_accuracy"]
        print(f"step {(epoch + 1) * STEPS:6,d}: loss {figures['loss']:.4f}, accuracy {accuracy:.2f} %")
    regression, _ = train((), data, options)
    results = tools.judged(data, {"network": network, "softmax regression": regression})

    if options.out is not None:
        panels = tools.axes(3)
        plotting.plot_loss(history, ax=panels[0])
        plotting.plot_accuracy(history, ax=panels[1])
        for axes in panels[:2]:
            axes.set_xlabel(f"epoch of {STEPS} full-batch steps")
            axes.legend(["during the epoch", "after the epoch"], title="training set", frameon=False)
        # Petal length and width tell the species apart best.
        plotting.plot_scatter(data.x_train[:, 2:], data.y_train, classes=data.classes, ax=panels[2])
        panels[2].set_aspect("auto")
        panels[2].set_xlabel("petal length (cm)")
        panels[2].set_ylabel("petal width (cm)")
        options.save(panels[0], "iris")
    return {**results, "seconds": seconds}


if __name__ == "__main__":
    tools.main(run, __doc__)
