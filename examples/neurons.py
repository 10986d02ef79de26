"""S6: neurons, layers and networks: ten points in two classes, with a 2-2-2 network.

A neuron multiplies its inputs by weights, adds a bias and applies the sigmoid: a = sigmoid(w . x + b). A layer consists
of neurons with the same inputs, and a network of layers in sequence. The tutorial implements them as three classes with
loops in plain Python. The weights of a layer's neurons form a matrix, so that all neurons are computed by one matrix
product; this is `nn.Dense(2, activation="sigmoid")`, in whose weight each column is a neuron.

    error      E = 1/2 sum (a - t)^2                       (our mean over two outputs is the same)
    output     delta = (a - t) a (1 - a)
    hidden     delta = a (1 - a) sum over the next layer's neurons of (weight * their delta)
    step       w <- w - rate delta x,  b <- b - rate delta

Forty passes over the ten points, one point per step, with a rate of 0.5.

Errors in the tutorial: the error that it prints compares the outputs with the list of all labels and therefore rises
while the network learns. Its weights and biases, drawn from 0..1, are all positive, for which 40 passes are too few
with some seeds (its algorithm classifies all ten points correctly with 257 of 300 seeds). Here weights are drawn from
Glorot's interval around zero.
"""

from __future__ import annotations

import time

import tools

import nnbackend as nn
from nnbackend import plotting

EPOCHS = 40


def run(options: tools.Options) -> dict[str, float]:
    """Train point by point, and return the number of correct points."""
    data = nn.datasets.load("ten-points")
    network = nn.Network(
        [nn.Dense(2, activation="sigmoid"), nn.Dense(2, activation="sigmoid")],
        data.input_shape, backend=options.backend, seed=options.seed, dtype="float64",
    )  # fmt: skip
    print(tools.described(network))
    begin = time.perf_counter()
    history = tools.fit(
        network, data.x_train, data.y_train, epochs=EPOCHS, batch_size=1, shuffle=False, loss="mean_squared_error",
        optimizer=nn.SGD(0.5),
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    for epoch in (1, *range(5, EPOCHS + 1, 5)):
        print(f"epoch={epoch}: mean squared error {history['loss'][epoch - 1]:.6f}")

    weights = network.get_weights()
    for layer, name in enumerate(("hidden layer", "output layer")):
        for neuron in range(2):
            first, second = weights[f"layers.{layer}.weight"][:, neuron]
            bias = weights[f"layers.{layer}.bias"][neuron]
            print(f"{name}, neuron {neuron}: weights {first:+.4f}, {second:+.4f}; bias {bias:+.4f}")
    predicted = network.predict_classes(data.x_train)
    for expected, got in zip(data.y_train, predicted, strict=True):
        print(f"Expected={expected}, Got={got}")
    right = int((predicted == data.y_train).sum())
    print(f"{right} of {len(data.y_train)} right")

    if options.out is not None:
        left, middle = tools.axes(2)
        plotting.plot_loss(history, ax=left)
        left.set_ylabel("mean squared error")
        plotting.plot_decision_regions(network, data.x_train, data.y_train, classes=data.classes, ax=middle)
        middle.set_title(f"{right} of {len(data.y_train)} right")
        options.save(left, "ten-points")
    return {"right": right, "seconds": seconds}


if __name__ == "__main__":
    tools.main(run, __doc__)
