"""S13: handwritten digits with two convolutions of three kernels each, and their limits.

    convolution   z = sum over the window and its channels of x K, + b, with kernels of 5 x 5; a = tanh(z)
    max pooling   p = max of 2 x 2 values;  its gradient goes to the largest of them
    L2 pooling    p = sqrt(sum of the squares of 2 x 2 values);  its gradient is a / p
    outputs       o = sigmoid(p W + b), one for each digit
    cost          C = -sum over the digits of t log o + (1 - t) log(1 - o), the mean over a batch of 10
    decay         C + decay / (2 n) sum W^2, for n images; of the kernels, too
    step          W <- W - 0.05 dC/dW

The network is 28x28 - 3 maps of 24x24 - 12x12 - 3 maps of 8x8 - 4x4 - 10. Our sigmoid cross-entropy is the mean over
the ten outputs, which is C / 10, so the same step needs ten times the rate: 0.5. Cost and accuracy of both sets are
computed after every epoch, and training ends after `PATIENCE` epochs without a lower validation cost. Several networks
are trained: with max pooling; with L2 pooling and "same" padding; with random, frozen kernels, so that only the last
layer learns; and, to see how good 3 + 3 kernels can be, with softmax, Adam and a rate that falls to zero.

L2 pooling needs a smaller rate. The curvature of the cost along the weights of one output is o (1 - o) |p|^2, at most a
quarter of the squared length of the last layer's input, and a step is stable as long as the rate times the curvature is
below 2. With max pooling, p has 48 values up to 1: 0.05 x 48 / 4 = 0.6. With L2 pooling and "same" padding it has 147
values up to 2, the length of four values up to 1: 0.05 x 588 / 4 = 7.4. Sooner or later a batch throws the outputs far
off; the error that comes back drives tanh to -1 or 1 almost everywhere, where its derivative is 0, so that the network
may never recover. A fifth of the rate is always stable: 0.01 x 588 / 4 = 1.5. The gradient of the pool itself is
harmless: a / p is never above 1.

Errors in the tutorial: the decay of the kernels is commented out, so only the last layer's weights decay, and the error
that pooling passes back is not multiplied by the derivative of tanh, so the kernels follow no gradient.

With --tutorial it trains on all 60,000 images, otherwise on 4,000.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tools

import nnbackend as nn
from nnbackend import plotting

EPOCHS, QUICK_EPOCHS = 50, 5
RATE, DECAY, PATIENCE = 0.05, 0.1, 10

#: The names of the networks, and what distinguishes them from the tutorial's.
NETWORKS: dict[str, dict[str, object]] = {
    "max pooling": {},
    "L2 pooling, same padding": {"pool": nn.L2Pool2D, "padding": "same"},
    "L2 pooling, a fifth of the rate": {"pool": nn.L2Pool2D, "padding": "same", "rate": RATE / 5},
    "frozen kernels": {"frozen": True},
    "at best": {"padding": "same", "best": True},
    "at best, L2 pooling": {"pool": nn.L2Pool2D, "padding": "same", "best": True},
}


class Monitor(nn.Callback):
    """Cost and accuracy of both sets after every epoch, as the tutorial's `monitor` options."""

    def __init__(self, data: nn.datasets.Dataset, targets: tuple[np.ndarray, np.ndarray], every: int) -> None:
        self.sets = {
            "training": (data.x_train, data.y_train, targets[0]),
            "validation": (data.x_test, data.y_test, targets[1]),
        }
        self.every = every
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, network: nn.Network, epoch: int, metrics: Mapping[str, float]) -> None:
        parts = []
        for name, (x, labels, targets) in self.sets.items():
            cost = network.evaluate(x, targets)["loss"]
            accuracy = float(np.mean(network.predict_classes(x) == labels))
            self.history.setdefault(f"{name} cost", []).append(cost)
            self.history.setdefault(f"{name} accuracy", []).append(accuracy)
            parts.append(f"{name} cost {cost:.4f}, accuracy {100 * accuracy:.2f} %")
        if epoch % self.every == 0:
            print(f"epoch {epoch:3}: {'; '.join(parts)}", flush=True)


def make_network(
    data: nn.datasets.Dataset,
    options: tools.Options,
    pool: type[nn.Layer] = nn.MaxPool2D,
    padding: str = "valid",
    frozen: bool = False,
    best: bool = False,
) -> nn.Network:
    """The tutorial's network with some of its options."""
    # Our loss is a tenth of the cost.
    decay = 0.0 if best else DECAY / (10 * len(data.x_train))
    kernels = {"padding": padding, "activation": "tanh", "l2": decay, "trainable": not frozen}
    layers = [
        nn.Reshape((28, 28, 1)),
        nn.Conv2D(3, 5, **kernels),
        pool(2),
        nn.Conv2D(3, 5, **kernels),
        pool(2),
        nn.Flatten(),
        nn.Dense(len(data.classes), l2=decay),
    ]
    return nn.Network(layers, data.input_shape, backend=options.backend, seed=options.seed)


def train(
    data: nn.datasets.Dataset,
    options: tools.Options,
    epochs: int,
    patience: int = PATIENCE,
    rate: float = RATE,
    **chosen: object,
) -> tuple[nn.Network, Monitor]:
    """Train a network; `chosen` are arguments of `make_network`."""
    network = make_network(data, options, **chosen)
    print(tools.described(network))
    best = bool(chosen.get("best"))
    targets = data.y_train, data.y_test
    if not best:
        one_hot = np.eye(len(data.classes))
        targets = one_hot[data.y_train], one_hot[data.y_test]
    monitor = Monitor(data, targets, max(epochs // 10, 1))
    tools.fit(
        network, data.x_train, targets[0], epochs=epochs, batch_size=50 if best else 10,
        loss="softmax_cross_entropy" if best else "sigmoid_cross_entropy",
        optimizer=nn.Adam(nn.CosineDecay(0.01, epochs=epochs)) if best else nn.SGD(10 * rate),
        validation_data=(data.x_test, targets[1]),
        callbacks=[monitor] if best else [monitor, nn.EarlyStopping(patience=patience)],
    )  # fmt: skip
    return network, monitor


def run(options: tools.Options) -> dict[str, float]:
    """Train all networks, and return their accuracies."""
    data = nn.datasets.load("mnist" if options.tutorial else "mnist-5k")
    print(data)
    if options.quick:
        data = replace(data, x_train=data.x_train[:1_000], y_train=data.y_train[:1_000])
    results: dict[str, float] = {}
    trained: dict[str, tuple[nn.Network, Monitor]] = {}
    for name, chosen in NETWORKS.items():
        print(f"\n{name}")
        begin = time.perf_counter()
        trained[name] = train(data, options, QUICK_EPOCHS if options.quick else EPOCHS, **chosen)
        monitor = trained[name][1]
        results[f"seconds, {name}"] = time.perf_counter() - begin
        results[name] = monitor.history["validation accuracy"][-1]
        epochs = len(monitor.history["validation accuracy"])
        print(f"accuracy: {100 * results[name]:.2f} % of {len(data.y_test):,}, after {epochs} epochs")

    if options.out is not None:
        pictures(data, trained, options)
    return results


def pictures(
    data: nn.datasets.Dataset, trained: Mapping[str, tuple[nn.Network, Monitor]], options: tools.Options
) -> None:
    """Kernels, feature maps, and the accuracies of the networks."""
    network, _ = trained["max pooling"]
    for name in ("kernels", "maps"):
        for place, axes in zip((1, 3), tools.axes(2, height=4.0 if name == "kernels" else 2.4), strict=True):
            if name == "kernels":
                plotting.plot_kernels(network, place, axes)
            else:
                plotting.plot_feature_maps(network, data.x_test[0], place, axes)
        options.save(axes, name)
    left, right = tools.axes(2)
    for name, (_, monitor) in trained.items():
        epochs = np.arange(1, 1 + len(monitor.history["validation cost"]))
        right.plot(epochs, monitor.history["validation accuracy"], label=name)
        if name != "at best":
            left.plot(epochs, monitor.history["validation cost"], label=name)
    left.set(xlabel="epoch", ylabel="validation cost / 10")
    right.set(xlabel="epoch", ylabel="validation accuracy")
    right.legend()
    options.save(right, "curves")


if __name__ == "__main__":
    tools.main(run, __doc__, flags={"tutorial": "all 60,000 images, as in the tutorial"})
