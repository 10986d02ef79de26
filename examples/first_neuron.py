"""S11: one neuron, then three, by hand; and the error that training reduces.

A neuron multiplies its inputs by weights, adds a bias, and maps the sum to 0..1:

    neuron    a = sigmoid(w . x + b),  sigmoid(z) = 1 / (1 + exp(-z))
    layer     the same for several neurons at once: a = sigmoid(x W + b), one column of W per neuron
    error     mean squared error = mean (t - a)^2

With w = (0, 1), b = 4 and x = (2, 3), the sum is 7. In the network of two hidden neurons and one output, all three have
w = (0, 1) and b = 0. The results are exact in float64 on every backend.
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
    """Compute the three numbers."""
    neuron = sigmoid_network((1,), 4.0, options)
    network = sigmoid_network((2, 1), 0.0, options)
    print(tools.described(neuron))
    results = {"neuron": float(neuron.predict(X)[0, 0]), "network": float(network.predict(X)[0, 0])}

    # A network that always predicts zero: the error between (1, 0, 0, 1) and four zeros.
    zero = nn.Network([nn.Dense(1, weight_initializer="zeros")], 1, backend=options.backend, dtype="float64")
    truth = [[1.0], [0.0], [0.0], [1.0]]
    results["error"] = zero.evaluate(np.zeros((4, 1)), truth, loss="mean_squared_error")["loss"]
    print(f"one neuron:         {results['neuron']!r}")
    print(f"three neurons:      {results['network']!r}")
    print(f"mean squared error: {results['error']!r}")

    if options.out is not None:
        sums = np.linspace(-8, 8, 401)
        line = nn.Network([nn.Activation("sigmoid")], 1, backend=options.backend, dtype="float64")
        (axes,) = tools.axes(1)
        axes.plot(sums, line.predict(sums[:, None])[:, 0], color="#0072B2")
        axes.plot(7, results["neuron"], "o", color="#D55E00")
        axes.annotate("our neuron", (7, results["neuron"]), xytext=(0, -30), textcoords="offset points", ha="center")
        axes.set_xlabel("weighted sum w . x + b")
        axes.set_ylabel("output")
        axes.set_title("The sigmoid")
        axes.grid(alpha=0.3)
        options.save(axes, "sigmoid")
    return results


if __name__ == "__main__":
    tools.main(run, __doc__)
