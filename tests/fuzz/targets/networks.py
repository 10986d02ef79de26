"""Networks for configurations, and the words in their descriptions."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

import nnbackend as nn
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.initializers import INITIALIZERS
from nnbackend.layers import LAYERS
from nnbackend.losses import LOSSES

__all__ = ["WORDS", "described", "use"]

WORDS = [*ACTIVATIONS, *INITIALIZERS, *LAYERS, *LOSSES, "float32", "float64", "float16", "layer", "kind", "units"]
WORDS += [
    "activation",
    "use_bias",
    "weight_initializer",
    "bias_initializer",
    "l1",
    "l2",
    "alpha",
    "rate",
    "name",
    "mean",
]
WORDS += [
    "standard_deviation",
    "low",
    "high",
    "layers",
    "input_shape",
    "seed",
    "dtype",
    "input_scale",
    "inputs",
    "description",
    "loss",
    "format",
]
WORDS += ["steps_trained", "epochs_trained", "values", "self", "generator", "shape"]


def described() -> nn.Network:
    """A network with all kinds of layers."""
    layers = [
        nn.Flatten(),
        nn.Dense(6, activation="elu", alpha=0.7, l2=0.1, weight_initializer=nn.Normal(0, 0.3)),
        nn.Dropout(0.3),
        nn.Activation("leaky_relu"),
        nn.MaxAbsNorm(),
        nn.Dense(4, use_bias=False, bias_initializer=nn.Uniform(-0.1, 0.1)),
    ]
    network = nn.Network(layers, (3, 4), backend="numpy", seed=5, input_scale=0.5)
    network.set_loss("softmax_cross_entropy")
    return network


def use(network: nn.Network) -> None:
    """Predict and train for a step, if the network is small: accepted networks must work."""
    work = network.parameter_count + math.prod(network.input_shape) + math.prod(network.output_shape)
    if work > 5000:
        return
    x = np.linspace(-1, 1, 2 * math.prod(network.input_shape)).reshape(2, *network.input_shape)
    with warnings.catch_warnings():
        # Extreme numbers overflow.
        warnings.simplefilter("ignore", RuntimeWarning)
        outputs = network.predict(x)
        assert outputs.shape == (2, *network.output_shape)
        y: Any = np.zeros((2, math.prod(network.output_shape)))
        network.fit(x, y, epochs=1, batch_size=2, loss="mean_squared_error", verbose=False)
