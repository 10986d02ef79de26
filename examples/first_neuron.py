"""S11: one neuron, then three, by hand; and the error that training will lower.

A neuron multiplies its inputs by weights, adds a bias, and squashes the sum into 0..1:

    neuron    a = sigmoid(w . x + b),  sigmoid(z) = 1 / (1 + exp(-z))
    layer     the same for several neurons at once: a = sigmoid(x W + b), one column of W a neuron
    error     mean squared error = mean (t - a)^2

With w = (0, 1), b = 4 and x = (2, 3) the sum is 7. In the network of two hidden neurons and one output all three have
w = (0, 1) and b = 0. The figures are exact in float64, on every backend.
"""

from __future__ import annotations

import numpy as np
import tools

import nnbackend as nn

X = [[2.0, 3.0]]


def sigmoid_network(sizes: tuple[int, ...], bias: float, options: tools.Options) -> nn.Network:
    """Layers of identical neurons with the weights (0, 1)."""
    layers = [nn.Dense(units, activation="sigmoid") for units in sizes]
    network = nn.Network(layers, 2, backend=options.backend, dtype="float64")
    weights = {}
    for name, array in network.get_weights().items():
        if name.endswith("weight"):
            weights[name] = np.repeat([[0.0], [1.0]], array.shape[1], axis=1)
        else:
            weights[name] = np.full(array.shape, bias)
    network.set_weights(weights)
    return network


def run(options: tools.Options) -> dict[str, float]:
    """The three figures."""
    neuron = sigmoid_network((1,), 4.0, options)
    network = sigmoid_network((2, 1), 0.0, options)
    print(tools.described(neuron))
    figures = {"neuron": float(neuron.predict(X)[0, 0]), "network": float(network.predict(X)[0, 0])}

    # A network that says zero to everything: the error of (1, 0, 0, 1) and four zeros.
    zero = nn.Network([nn.Dense(1, weight_initializer="zeros")], 1, backend=options.backend, dtype="float64")
    truth = [[1.0], [0.0], [0.0], [1.0]]
    figures["error"] = zero.evaluate(np.zeros((4, 1)), truth, loss="mean_squared_error")["loss"]
    print(f"one neuron:         {figures['neuron']!r}")
    print(f"three neurons:      {figures['network']!r}")
    print(f"mean squared error: {figures['error']!r}")

    if options.out is not None:
        sums = np.linspace(-8, 8, 401)
        line = nn.Network([nn.Activation("sigmoid")], 1, backend=options.backend, dtype="float64")
        (axes,) = tools.axes(1)
        axes.plot(sums, line.predict(sums[:, None])[:, 0], color="#0072B2")
        axes.plot(7, figures["neuron"], "o", color="#D55E00")
        axes.annotate("our neuron", (7, figures["neuron"]), xytext=(0, -30), textcoords="offset points", ha="center")
        axes.set_xlabel("weighted sum w . x + b")
        axes.set_ylabel("output")
        axes.set_title("The sigmoid")
        axes.grid(alpha=0.3)
        options.save(axes, "sigmoid")
    return figures


if __name__ == "__main__":
    tools.main(run, __doc__)
