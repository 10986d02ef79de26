"""Backends, data and networks that the configurations share."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

import nnbackend as nn

__all__ = ["BACKENDS", "CLASSES", "FEATURES", "backend_of", "images", "numbers", "rich_network", "table", "train"]

try:
    from nnbackend.data.scale import Images as _Images
except ImportError:  # A package from before October 2026, which scales all uint8.
    _Images = np.ndarray  # type: ignore[misc, assignment]

BACKENDS = ("numpy", "numba", "numpy-padded", "numba-padded")
FEATURES, CLASSES = 12, 4
#: The same on every machine, because sums are divided among threads.
_THREADS = 2

Array = npt.NDArray[Any]


@functools.cache
def backend_of(name: str) -> nn.Backend:
    """A backend with two threads; "-padded" ones require rows padded to 16 elements."""
    kind: Any = nn.NumbaBackend if name.startswith("numba") else nn.NumpyBackend
    if name.endswith("-padded"):
        kind = type(f"Padded{kind.__name__}", (kind,), {"row_multiple": 16})
    backend: nn.Backend = kind(threads=_THREADS)
    return backend


def images(rows: int = 70, features: int = FEATURES, classes: int = CLASSES, seed: int = 0) -> tuple[Array, Array]:
    """Rows of pixels, uint8 and scaled like those of a data set, whose values depend on their class; and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    centres = generator.integers(40, 215, (classes, features))
    noise = generator.normal(0, 25, (rows, features))
    return np.clip(centres[labels] + noise, 0, 255).astype(np.uint8).view(_Images), labels


def table(rows: int = 70, features: int = FEATURES, classes: int = CLASSES, seed: int = 1) -> tuple[Array, Array]:
    """Rows of float64 around a centre for each class, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    centres = generator.normal(0, 1, (classes, features))
    return centres[labels] + generator.normal(0, 0.7, (rows, features)), labels


def numbers(rows: int = 70, features: int = FEATURES, outputs: int = 3, seed: int = 2) -> tuple[Array, Array]:
    """Rows of float64, and targets that are smooth functions of them."""
    generator = np.random.default_rng(seed)
    x = generator.normal(0, 1, (rows, features))
    return x, np.sin(x @ generator.normal(0, 0.5, (features, outputs)))


def rich_network(backend: str, dtype: str = "float32", seed: int = 5) -> nn.Network:
    """A network with many features: a saved pre-activation, dropout, a norm, penalties, an odd number of units."""
    layers = [
        nn.Dense(11, activation="gelu", l2=1e-3),
        nn.Dropout(0.2),
        nn.MaxAbsNorm(),
        nn.Dense(7, activation="leaky_relu", l1=1e-4),
        nn.Dense(CLASSES),
    ]
    return nn.Network(layers, FEATURES, backend=backend_of(backend), seed=seed, dtype=dtype)


def train(network: nn.Network, x: Any, y: Any = None, **options: Any) -> nn.History:
    """Train for two epochs in batches of 16 by default; with 70 rows the last batch has 6."""
    settings = {"epochs": 2, "batch_size": 16, "loss": "softmax_cross_entropy", "verbose": False, **options}
    return network.fit(x, y, **settings)
