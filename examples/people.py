"""S12: male or female, from weight and height: a 2-2-1 network and four people.

Two hidden neurons and one output; 1 means female. Weights (pounds) and heights (inches) are shifted by about their
mean. A thousand passes over Alice, Bob, Charlie and Diana, one person per step, with a rate of 0.1:

    error     L = (t - a)^2
    output    dL/da = -2 (t - a),  delta = dL/da * a (1 - a)
    hidden    delta = w * delta(output) * h (1 - h)
    step      w <- w - rate * delta * input,  b <- b - rate * delta

The tutorial writes out the nine derivatives one by one and says itself that real code does not look like this; the
formulae are correct. All weights and biases start from N(0, 1).
"""

from __future__ import annotations

import time

import tools

import nnbackend as nn
from nnbackend import plotting

EPOCHS = 1_000
NAMES = ("Alice", "Bob", "Charlie", "Diana")


def run(options: tools.Options) -> dict[str, float]:
    """Train, and return the last error and the number of correct people."""
    data = nn.datasets.load("people")
    wide = nn.Normal(0.0, 1.0)
    network = nn.Network(
        [nn.Dense(units, activation="sigmoid", weight_initializer=wide, bias_initializer=wide) for units in (2, 1)],
        data.input_shape, backend=options.backend, seed=options.seed, dtype="float64",
    )  # fmt: skip
    print(tools.described(network))
    begin = time.perf_counter()
    history = tools.fit(
        network, data.x_train, data.y_train, epochs=EPOCHS, batch_size=1, shuffle=False, loss="mean_squared_error",
        optimizer=nn.SGD(0.1), validation_data=(data.x_train, data.y_train),
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    for epoch in range(0, EPOCHS, 100):
        print(f"Epoch {epoch} loss: {history['val_loss'][epoch]:.3f}")
    outputs = network.predict(data.x_train)[:, 0]
    right = 0
    for name, output, target in zip(NAMES, outputs, data.y_train, strict=True):
        says = int(output > 0.5)
        right += says == target
        print(f"{name:8} {output:.3f}: {data.classes[says]}")
    print(f"{right} of {len(NAMES)} right")

    if options.out is not None:
        left, middle = tools.axes(2)
        plotting.plot_loss(history, ax=left)
        left.set_ylabel("mean squared error")
        left.set_yscale("log")
        left.legend(["during the epoch", "after the epoch"], frameon=False)
        plotting.plot_decision_regions(network, data.x_train, data.y_train, classes=data.classes, ax=middle)
        middle.set_aspect("auto")
        middle.set_xlabel("weight, shifted (lb)")
        middle.set_ylabel("height, shifted (in)")
        options.save(left, "people")
    return {"loss": history["val_loss"][-1], "right": right, "seconds": seconds}


if __name__ == "__main__":
    tools.main(run, __doc__)
