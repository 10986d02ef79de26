"""S2: AND, OR and NOT, each learned by a single neuron (logistic regression).

The neuron computes p = sigmoid(x W + b). Two hundred thousand gradient steps over the whole truth table, with a
learning rate of 0.001, minimise the binary cross-entropy and an L2 penalty on the weights:

    loss      L = -mean(t log p + (1 - t) log(1 - p)) + (l2 / 2) sum W^2
    gradient  dL/dz = (p - t) / n,  dL/dW = x' dL/dz + l2 W,  dL/db = sum dL/dz

Errors in the tutorial: its penalty adds l2 * (the sum of all weights) to every gradient. This is the gradient of
(l2 / 2) (sum W)^2, which pulls the sum of the weights to zero instead of each weight. Its bias for AND has the shape
(1, 2) of the inputs, so NumPy's broadcasting turns one output into two, and all their weights are in that sum. The
second run below uses this formula in a user-defined layer with one extra line, with a twentieth of the steps and twenty
times the rate, and reproduces the tutorial's numbers: the second output of AND doubles the factor. For NOT, which has a
single weight, both formulae are the same.
"""

from __future__ import annotations

import time
from typing import Any

import tools

import nnbackend as nn
from nnbackend import plotting

L2 = 1e-3
GATES = ("and", "or", "not")
#: How often each weight occurs in the tutorial's sum.
COPIES = {"and": 2, "or": 1, "not": 1}
EPOCHS, STEPS = 400, 500


class SumPenaltyDense(nn.Dense):
    """A dense layer with the tutorial's penalty: it adds `factor` times the sum of all weights to each gradient."""

    def __init__(self, units: int, factor: float, **options: Any) -> None:
        super().__init__(units, **options)
        self.factor = factor

    def backward(self, step: nn.LayerStep, saved: Any, upstream: Any, need_input_gradient: bool) -> Any:
        downstream = super().backward(step, saved, upstream, need_input_gradient)
        step.call(self.add_penalty, step.parameter("weight"), step.gradient("weight"))
        return downstream

    def add_penalty(self, backend: nn.Backend, weight: Any, gradient: Any) -> None:
        """Works with NumPy's and CuPy's arrays."""
        gradient += self.factor * weight.sum()


def train(
    layer: nn.Layer, data: nn.datasets.Dataset, options: tools.Options, haste: int
) -> tuple[nn.Network, nn.History]:
    """Train with gradient descent over the whole table, in epochs of 500 steps.

    With such a small rate, gradient descent follows the gradient flow closely: `haste` times the rate with `haste`
    times fewer steps gives the same result to three digits or more.
    """
    network = nn.Network([layer], data.input_shape, backend=options.backend, seed=options.seed, dtype="float64")
    history = tools.fit(
        network, data.x_train, data.y_train, epochs=EPOCHS // haste, steps_per_epoch=STEPS,
        batch_size=len(data.x_train), shuffle=False, loss="sigmoid_cross_entropy", optimizer=nn.SGD(haste * 1e-3),
    )  # fmt: skip
    return network, history


def show(name: str, network: nn.Network, data: nn.datasets.Dataset) -> tuple[Any, Any]:
    weights = network.get_weights()
    weight, bias = weights["layers.0.weight"][:, 0], weights["layers.0.bias"][0]
    # Only the cross-entropy: the user-defined layer has its penalty in the gradient, but not in the loss.
    entropy = network.evaluate(data.x_train, data.y_train)["loss"] - network.penalty()
    print(f"\n{name}: cross-entropy {entropy:.4f}")
    print(f"weights {', '.join(f'{value:.4f}' for value in weight)}; bias {bias:.4f}")
    print("input    target  prediction")
    for x, target, prediction in zip(data.x_train, data.y_train, network.predict(data.x_train)[:, 0], strict=True):
        print(f"{' '.join(f'{value:.0f}' for value in x):7}  {target:6d}  {prediction:.6f}")
    return weight, bias


def run(options: tools.Options) -> dict[str, Any]:
    """Train all gates; return correct rows, and weights with the correct and with the tutorial's formula."""
    small = nn.Normal(0.0, 0.01)
    starts = {"weight_initializer": small, "bias_initializer": small}
    results: dict[str, Any] = {"right": 0, "rows": 0, "seconds": 0.0}
    panels = tools.axes(3) if options.out is not None else []
    for index, gate in enumerate(GATES):
        data = nn.datasets.load(gate)
        begin = time.perf_counter()
        network, history = train(nn.Dense(1, l2=L2, **starts), data, options, 20 if options.quick else 1)
        results["seconds"] += time.perf_counter() - begin
        if index == 0:
            print(tools.described(network))
        results[gate] = show(gate.upper(), network, data)
        results["right"] += int((network.predict_classes(data.x_train) == data.y_train).sum())
        results["rows"] += len(data.y_train)

        repeated, _ = train(SumPenaltyDense(1, L2 * COPIES[gate], **starts), data, options, 20)
        results[f"{gate}, tutorial's formula"] = show(f"{gate.upper()}, with the tutorial's penalty", repeated, data)
        if panels:
            plotting.plot_loss(history, ax=panels[index])
            panels[index].set_title(gate.upper())
            panels[index].set_xlabel(f"epoch of {STEPS} steps")
    print(f"\nrows right: {results['right']} of {results['rows']}")
    if panels:
        options.save(panels[0], "loss")
    return results


if __name__ == "__main__":
    tools.main(run, __doc__)
