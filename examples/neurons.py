"""S6: neurons, layers and networks: ten points in two classes, by a 2-2-2 network.

A neuron weighs its inputs, adds a bias and squashes the sum: a = sigmoid(w . x + b). A layer is neurons that see the
same inputs; a network is layers one after the other. The tutorial writes them as three classes of plain Python and
loops. A layer's weights side by side are a matrix, and all its neurons at once are a product, which is what
`nn.Dense(2, activation="sigmoid")` is; one column of its weight is one neuron.

    error      E = 1/2 sum (a - t)^2                       (our mean over two outputs is the same)
    output     delta = (a - t) a (1 - a)
    hidden     delta = a (1 - a) sum over the next layer's neurons of (weight * their delta)
    step       w <- w - rate delta x,  b <- b - rate delta

Forty passes over the ten points, one point a step, at a rate of 0.5.

Where the tutorial errs: the error it prints compares the outputs with the list of all labels and so rises while the
network learns; and weights and biases drawn from 0..1 are all positive, from where 40 passes are too few for some
seeds (its algorithm gets all ten points right from 257 of 300). Here weights come from Glorot's interval about zero.
"""

from __future__ import annotations

import time

import tools

import nnbackend as nn
from nnbackend import plotting

EPOCHS = 40


def run(options: tools.Options) -> dict[str, float]:
    """Train point by point, and return how many of the ten are right."""
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
