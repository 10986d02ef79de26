"""S5: handwritten digits with a 784-200-80-10 network and with softmax regression.

Two ReLU layers and softmax, batches of 256, plain gradient descent with an L2 penalty of 0.001; the epoch with the
best training accuracy is kept.

    loss      L = -mean log p(true class) + (l2 / 2) sum W^2,  p = softmax(z)
    step      W <- W - rate dL/dW

Softmax regression, the same without hidden layers, is trained for comparison.

Errors in the tutorial: it uses pixels of 0 to 255, which require a learning rate as small as 0.001, and trains with it
for 200 epochs. As in S3, the biases of the last two layers are not updated with their gradient. The images have the
same order in all epochs, the shorter last batch is skipped, and the best epoch is chosen by the accuracy on its last
batch, which soon is 100 % by chance. Here pixels are scaled to 0..1, so that a rate of 0.5 works; it decays along a
cosine, and 30 epochs are enough. With --tutorial, the tutorial's pixels, initialisation, rate and epochs are used, and
the other errors are corrected.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import tools

import nnbackend as nn
from nnbackend import plotting

#: L2 penalties of the network and of softmax regression, which needs less regularisation.
L2, REGRESSION_L2 = 1e-3, 1e-4
EPOCHS, TUTORIAL_EPOCHS, QUICK_EPOCHS = 30, 200, 12


def train(
    hidden: tuple[int, ...], l2: float, data: nn.datasets.Dataset, options: tools.Options, epochs: int
) -> tuple[nn.Network, nn.History]:
    """Train with plain gradient descent, and keep the epoch with the best training accuracy."""
    every = max(epochs // 10, 1)
    start = nn.Normal(0.0, 0.01) if options.tutorial else None
    layers = [nn.Dense(units, activation="relu", l2=l2, weight_initializer=start) for units in hidden]
    network = nn.Network(
        [*layers, nn.Dense(len(data.classes), l2=l2, weight_initializer=start)],
        data.input_shape, backend=options.backend, seed=options.seed,
        # By default, uint8 images are scaled to 0..1.
        input_scale=1.0 if options.tutorial else None,
    )  # fmt: skip
    print(tools.described(network))
    history = tools.fit(
        network, data.x_train, data.y_train, epochs=epochs, batch_size=256, loss="softmax_cross_entropy",
        optimizer=nn.SGD(1e-3 if options.tutorial else nn.CosineDecay(0.5, epochs=epochs)),
        validation_data=(data.x_test, data.y_test), callbacks=[nn.KeepBest("accuracy"), tools.EachEpoch(line, every)],
    )  # fmt: skip
    return network, history


def line(metrics: Mapping[str, float]) -> str:
    """The line to print for an epoch."""
    accuracy = 100 * metrics["accuracy"]
    return f"epoch {metrics['epoch']:3.0f}: loss {metrics['loss']:.4f}, training accuracy {accuracy:.2f} %"


def run(options: tools.Options) -> dict[str, float]:
    """Train both models, and return their accuracies."""
    data = nn.datasets.load("mnist-5k" if options.quick else "auto")
    print(data.notice or data)
    epochs = QUICK_EPOCHS if options.quick else TUTORIAL_EPOCHS if options.tutorial else EPOCHS
    begin = time.perf_counter()
    network, history = train((200, 80), L2, data, options, epochs)
    seconds = time.perf_counter() - begin
    regression, _ = train((), REGRESSION_L2, data, options, epochs)
    results = tools.judged(data, {"network": network, "softmax regression": regression})

    if options.out is not None:
        options.save(plotting.plot_curves(history)[0], "curves")
        axes = plotting.plot_misclassified(data.x_test, data.y_test, network.predict_classes(data.x_test))
        options.save(axes, "misclassified")
        axes = plotting.plot_weights(network)
        axes.set_title("Weights of 40 of the 200 units of the first layer")
        options.save(axes, "weights")
    return {**results, "seconds": seconds}


if __name__ == "__main__":
    tools.main(run, __doc__, flags={"tutorial": "the tutorial's own recipe: raw pixels, 200 epochs"})
