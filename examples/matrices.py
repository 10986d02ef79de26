"""S7: the same with matrices: a 2-3-2 network on the ten points and on XOR.

The computations of S6, neuron by neuron, are one matrix product per layer: a = sigmoid(x W + b), and backwards

    output     delta = (a - t) * a * (1 - a)
    hidden     delta = (delta' W'^T) * a * (1 - a)
    step       W <- W - rate x^T delta,  b <- b - rate delta

with a rate of 0.5 and one row per step: 40 passes over the ten points. The tutorial trains XOR for 100 passes, after
which neither its network nor ours has learned anything: the error is near 1/4, that of "always 1/2". The plateau ends
after some thousand passes, so XOR is also trained for 5,000.

Errors in the tutorial: it multiplies the hidden layer's error by the derivative a (1 - a) twice. As this is at most
1/4, the hidden layer learns with at most a quarter of the rate. Its algorithm classifies all ten points correctly with
144 of the seeds 0 to 299, and with 287 of them if the derivative is applied once. It draws weights and biases from
0..1; with -1..1, used here for the ten points, 298 seeds succeed.
"""

from __future__ import annotations

import time

import tools

import nnbackend as nn
from nnbackend import plotting

#: The loss on XOR is recorded every 100 passes.
XOR_STEPS, XOR_EPOCHS = 400, 50


def train(data: nn.datasets.Dataset, options: tools.Options, start: nn.Initializer, **fit: int):
    """Train with one row per step, in the order of the table."""
    starts = {"weight_initializer": start, "bias_initializer": start}
    layers = [nn.Dense(units, activation="sigmoid", **starts) for units in (3, 2)]
    network = nn.Network(layers, data.input_shape, backend=options.backend, seed=options.seed, dtype="float64")
    history = tools.fit(
        network, data.x_train, data.y_train, batch_size=1, shuffle=False, loss="mean_squared_error",
        optimizer=nn.SGD(0.5), **fit,
    )  # fmt: skip
    return network, history


def show(network: nn.Network, data: nn.datasets.Dataset) -> int:
    predicted = network.predict_classes(data.x_train)
    for x, expected, got in zip(data.x_train, data.y_train, predicted, strict=True):
        print(f"Input: [{', '.join(f'{value:g}' for value in x)}], Expected: {expected}, Predicted: {got}")
    right = int((predicted == data.y_train).sum())
    print(f"{right} of {len(predicted)} right\n")
    return right


def run(options: tools.Options) -> dict[str, float]:
    """Train on both tables, and return the number of correct rows of each."""
    points, xor = nn.datasets.load("ten-points"), nn.datasets.load("xor")
    positive = nn.Uniform(0.0, 1.0)
    results = {}

    begin = time.perf_counter()
    network, history = train(points, options, nn.Uniform(-1.0, 1.0), epochs=40)
    results["seconds"] = time.perf_counter() - begin
    print(tools.described(network))
    print(f"ten points, 40 epochs: mean squared error {history['loss'][0]:.4f} -> {history['loss'][-1]:.4f}")
    results["points right"] = show(network, points)

    short, early = train(xor, options, positive, epochs=1, steps_per_epoch=XOR_STEPS)
    print(f"XOR, 100 epochs: mean squared error {early['loss'][-1]:.4f}: too few")
    results["xor right after 100 epochs"] = show(short, xor)

    long, later = train(xor, options, positive, epochs=XOR_EPOCHS, steps_per_epoch=XOR_STEPS)
    print(f"XOR, {100 * XOR_EPOCHS:,} epochs: mean squared error {later['loss'][-1]:.4f}")
    results["xor right"] = show(long, xor)

    if options.out is not None:
        panels = tools.axes(3)
        plotting.plot_decision_regions(network, points.x_train, points.y_train, classes=points.classes, ax=panels[0])
        panels[0].set_title("Ten points, 40 epochs")
        plotting.plot_loss(later, ax=panels[1])
        panels[1].set_xlabel("epochs (hundreds)")
        panels[1].set_ylabel("mean squared error")
        panels[1].set_title("XOR")
        plotting.plot_decision_regions(long, xor.x_train, xor.y_train, classes=xor.classes, ax=panels[2])
        panels[2].set_title(f"XOR, {100 * XOR_EPOCHS:,} epochs")
        options.save(panels[0], "matrices")
    return results


if __name__ == "__main__":
    tools.main(run, __doc__)
