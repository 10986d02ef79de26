"""Tiny networks for ``nnbackend warmup``: training all of them uses every operation of a backend."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Backend
from nnbackend.data.scale import PIXEL_SCALE
from nnbackend.layers import Activation, Dense, Dropout, Layer, MaxAbsNorm
from nnbackend.network import Network
from nnbackend.optimizers import SGD, Adam, Optimizer, RMSprop

__all__ = ["WarmupNetwork", "warmup_networks"]

_ROWS, _FEATURES, _OUTPUTS = 10, 6, 3
#: Does not divide the rows, so that the shorter last batch is compiled, too.
_BATCH_SIZE = 4
#: Small, so that nothing diverges.
_RATE = 1e-6


@dataclass(frozen=True)
class WarmupNetwork:
    """A network to train.

    Attributes
    ----------
    executor : {"compiled", "plain"}
        The executor of its steps, on a backend that has both.
    loss, data, optimizer : str
        What distinguishes it from the others.
    run : callable
        Trains, evaluates and predicts.
    """

    executor: str
    loss: str
    data: str
    optimizer: str
    run: Callable[[], None]


def warmup_networks(backend: Backend, dtype: str) -> Iterator[WarmupNetwork]:
    """All warm-up networks on one backend and in one data type."""
    for executor in ("compiled", "plain"):
        for loss, data, optimizer in _VARIANTS:
            run = partial(_train, backend, dtype, executor, loss, data, optimizer)
            yield WarmupNetwork(executor, loss, data, type(optimizer).__name__, run)


#: Loss, data and optimizer. "bytes" are uint8 images with integer labels; "numbers" are floats for both. AdamW uses the
#: kernels of Adam.
_VARIANTS: tuple[tuple[str, str, Optimizer], ...] = (
    ("softmax_cross_entropy", "bytes", SGD(_RATE, weight_decay=1e-3)),
    ("softmax_cross_entropy", "numbers", SGD(_RATE, momentum=0.9, nesterov=True)),
    ("sigmoid_cross_entropy", "numbers", Adam(_RATE)),
    ("mean_squared_error", "numbers", RMSprop(_RATE)),
)


def _train(backend: Backend, dtype: str, executor: str, loss: str, data: str, optimizer: Optimizer) -> None:
    chosen = _without_fast_executors(backend) if executor == "plain" else backend
    network = Network(
        _layers(), _FEATURES, chosen, dtype=dtype, seed=0, input_scale=PIXEL_SCALE if data == "bytes" else None
    )
    generator = np.random.default_rng(0)
    x: Any = generator.random((_ROWS, _FEATURES))
    y: Any = np.full((_ROWS, _OUTPUTS), 1 / _OUTPUTS)
    if data == "bytes":
        x, y = (255 * x).astype(np.uint8), np.arange(_ROWS) % _OUTPUTS
    history = network.fit(
        x,
        y,
        epochs=1,
        batch_size=_BATCH_SIZE,
        loss=loss,
        optimizer=optimizer,
        sample_weight=np.linspace(0.5, 1.5, _ROWS),
        validation_data=(x, y),
        verbose=False,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    network.predict(x)


def _layers() -> list[Layer]:
    """All layers and activations; the activations both inside dense layers and on their own."""
    dense = [Dense(_FEATURES, name, l1=1e-3, l2=1e-3) for name in ACTIVATIONS]
    activations = [Activation(name) for name in ACTIVATIONS]
    return [*dense, *activations, Dropout(0.1), MaxAbsNorm(), Dense(_OUTPUTS, use_bias=False)]


def _without_fast_executors(backend: Backend) -> Backend:
    """A copy of the backend that runs every step call by call: its plain kernels serve steps with padded rows."""
    plain = copy.copy(backend)
    vars(plain)["executor"] = plain.plain_executor
    return plain
