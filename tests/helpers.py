"""Small networks and data that several tests share."""

from __future__ import annotations

import functools

import numpy as np

import nnbackend as nn
from nnbackend.data.scale import Images


def images(rows: int = 70, features: int = 12, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pixels, uint8 and scaled like those of a data set, whose values depend on their class; and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    centres = generator.integers(40, 215, (classes, features))
    noise = generator.normal(0, 25, (rows, features))
    return np.clip(centres[labels] + noise, 0, 255).astype(np.uint8).view(Images), labels


def classifier(backend="numpy", *, features: int = 12, classes: int = 4, **options) -> nn.Network:
    """A small ReLU network."""
    layers = [nn.Dense(9, activation="relu"), nn.Dense(classes)]
    return nn.Network(layers, features, backend=backend, **options)


def rich_network(backend, dtype="float32") -> nn.Network:
    """A network with many features: a saved pre-activation, dropout, penalties, sums over rows, an odd number of
    units."""
    layers = [
        nn.Dense(11, activation="gelu", l2=1e-3),
        nn.Dropout(0.2),
        nn.MaxAbsNorm(),
        nn.Dense(7, activation="leaky_relu", l1=1e-4),
        nn.Dense(4),
    ]
    return nn.Network(layers, 12, backend=backend, seed=5, dtype=dtype)


def convolutional_network(backend, dtype="float32") -> nn.Network:
    """A convolution and batch normalisation of images and of flat samples, on the same rows as `rich_network`."""
    layers = [
        nn.Reshape((3, 4, 1)),
        nn.Conv2D(5, 2, padding="same"),
        nn.BatchNormalization(0.8),
        nn.Activation("relu"),
        nn.MaxPool2D(2),
        nn.Residual([nn.Conv2D(5, 1), nn.BatchNormalization(0.9)]),
        nn.BatchNormalization(trainable=False),
        nn.Flatten(),
        nn.BatchNormalization(0.7),
        nn.Dense(4),
    ]
    return nn.Network(layers, 12, backend=backend, seed=5, dtype=dtype)


def same_weights(one: nn.Network, other: nn.Network) -> bool:
    """Whether two networks have bit-identical parameters."""
    first, second = one.get_weights(), other.get_weights()
    return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def any_device(function):
    """A function of a user's own layer, written for NumPy's arrays, that also works on arrays of other devices.

    Such arrays are read to the host and written back.
    """

    @functools.wraps(function)
    def wrapped(backend, *arguments):
        hosts = [
            backend.to_host(each) if hasattr(each, "shape") and not isinstance(each, np.ndarray) else each
            for each in arguments
        ]
        function(backend, *hosts)
        for host, array in zip(hosts, arguments, strict=True):
            if host is not array:
                backend.write(host, array)

    return wrapped


class Shift(nn.Layer):
    """A user-defined layer without checks that returns its input."""

    def __init__(self, by):
        self.by = by + 0

    def forward(self, step, x):
        return x, None

    def backward(self, step, saved, upstream, need_input_gradient):
        return upstream

    def config(self):
        return {"by": self.by}
