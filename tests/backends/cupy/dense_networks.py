"""Networks, optimizers, losses and data for the tests of steps in two kernels."""

from __future__ import annotations

import numpy as np

import nnbackend as nn
from nnbackend.backends.cupy import CupyBackend
from nnbackend.backends.cupy.dense_program import THREADS
from tests.backends.cupy.emulator import EmulatedRuntime
from tests.helpers import images

__all__ = ["BATCH", "FEATURES", "LOSSES", "NETWORKS", "OPTIMIZERS", "RELU", "ROWS", "data", "network", "watched"]

ROWS, FEATURES = 21, 12
BATCH = 8
RELU = {"activation": "relu"}

#: More outputs than the 4 columns of each of the threads of a block, more inputs than a tile, inputs that fill tiles,
#: more outputs than the 4 columns of each of four lanes.
NETWORKS = {
    "one layer": lambda: [nn.Dense(4)],
    "dropout": lambda: [nn.Dense(33, **RELU), nn.Dropout(0.3), nn.Dense(7, activation="gelu"), nn.Dense(4)],
    "activations apart": lambda: [
        nn.Dense(32),
        nn.Activation("silu"),
        nn.Dropout(0.2),
        nn.Dense(21, activation="tanh"),
        nn.Dense(4),
    ],
    "no bias": lambda: [nn.Dense(32, use_bias=False, activation="tanh"), nn.Dense(4, use_bias=False)],
    "frozen": lambda: [nn.Dense(5, **RELU), nn.Dense(6, activation="elu", alpha=0.5, trainable=False), nn.Dense(4)],
    "frozen first": lambda: [nn.Dense(5, trainable=False), nn.Dropout(0.1), nn.Dense(9, **RELU), nn.Dense(4)],
    "dropout first": lambda: [nn.Flatten(), nn.Dropout(0.4), nn.Dense(70, activation="leaky_relu"), nn.Dense(4)],
    "one unit": lambda: [nn.Dense(1, activation="softplus"), nn.Dense(6, activation="sigmoid"), nn.Dense(4)],
    "penalties": lambda: [nn.Dense(33, l1=1e-2, l2=1e-1, **RELU), nn.Dense(5, use_bias=False), nn.Dense(4, l2=0.3)],
    "scaled": lambda: [
        nn.Scale(learning_rate_factor=6.0),
        nn.Dense(33, activation="mish", parametrization="ntk"),
        nn.Dense(4, parametrization="ntk"),
    ],
    "factors": lambda: [
        nn.Dense(40, learning_rate_factor=0.5, **RELU),
        nn.Scale(initializer=np.linspace(0.5, 1.5, 40), trainable=False),
        nn.Dense(5, activation="selu"),
        nn.Dense(4, learning_rate_factor=0.5),
    ],
    "table": lambda: [
        nn.Normalization(mean=np.linspace(0, 1, FEATURES), variance=np.linspace(0.1, 2, FEATURES)),
        nn.Scale(initializer=np.linspace(0.5, 1.5, FEATURES), learning_rate_factor=6.0),
        nn.Dense(33, activation="mish", parametrization="ntk", l2=0.1),
        nn.Dropout(0.2),
        nn.Dense(4, l1=1e-2),
    ],
    "scale of many": lambda: [nn.Scale(initializer=np.linspace(-1, 1, FEATURES)), nn.Dense(4)],
    "normalized": lambda: [
        nn.Normalization(mean=np.linspace(0, 1, FEATURES), variance=np.linspace(0.1, 2, FEATURES)),
        nn.Dense(9, **RELU),
        nn.Dense(4),
    ],
    "normalized within": lambda: [
        nn.Dense(7),
        nn.BatchNormalization(trainable=False),
        nn.Dense(9, **RELU),
        nn.Normalization(mean=np.linspace(0, 1, 9), variance=np.linspace(0.1, 2, 9)),
        nn.Dense(4),
    ],
    "wide": lambda: [nn.Dense(4 * THREADS + 3, activation="exponential"), nn.Dense(4)],
}

OPTIMIZERS = {
    "sgd": lambda: nn.SGD(nn.ExponentialDecay(0.2, 0.5)),
    "nesterov": lambda: nn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "momentum": lambda: nn.SGD(nn.OneCycle(0.1, epochs=2), momentum=0.9),
    "adam": lambda: nn.Adam(nn.OneCycle(0.02, epochs=2), weight_decay=1e-3),
    "adamw": lambda: nn.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: nn.RMSprop(0.003, weight_decay=1e-3),
    "lion": lambda: nn.Lion(nn.OneCycle(0.01, epochs=2), beta2=0.9, weight_decay=0.1),
}

LOSSES = {
    "softmax_cross_entropy": {"loss": "softmax_cross_entropy"},
    "smoothed": {"loss": "softmax_cross_entropy", "label_smoothing": 0.1},
    "focal": {"loss": nn.losses.Focal(1.5)},
    "sigmoid": {"loss": "sigmoid_cross_entropy", "label_smoothing": 0.2},
    "sigmoid focal": {"loss": nn.losses.Focal(2.0, "sigmoid")},
    "squared": {"loss": "mean_squared_error"},
    "absolute": {"loss": "mean_absolute_error"},
    "huber": {"loss": nn.losses.Huber(0.3)},
    "log_cosh": {"loss": "log_cosh"},
    "poisson": {"loss": "poisson"},
    "probabilities": {"loss": "softmax_cross_entropy"},
    "quantile": {"loss": nn.losses.Quantile([0.1, 0.4, 0.6, 0.9])},
}


def data(loss="softmax_cross_entropy"):
    x, y = images(ROWS, FEATURES)
    if loss in ("softmax_cross_entropy", "smoothed", "focal"):
        return x, y
    if loss == "quantile":
        return x, y / 4
    return x, np.eye(4)[y] * 0.9 + (0.025 if loss == "probabilities" else 0)


def network(backend, layers="dropout", dtype="float64", seed=3):
    return nn.Network(NETWORKS[layers](), FEATURES, backend=backend, dtype=dtype, seed=seed)


def watched(**order):
    """A backend and the list of its launches."""
    runtime = EmulatedRuntime(**order)
    runtime.log = []
    return CupyBackend(runtime), runtime.log
