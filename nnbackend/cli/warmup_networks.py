"""Tiny networks for ``nnbackend warmup``: training all of them uses every operation of a backend."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nnbackend.augment import Elastic, Shift
from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Backend
from nnbackend.data.scale import PIXEL_SCALE
from nnbackend.layers import (
    Activation,
    AveragePool2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    L2Pool2D,
    Layer,
    LayerNormalization,
    MaxAbsNorm,
    MaxPool2D,
    ParametricActivation,
    PeriodicEmbedding,
    Residual,
    Scale,
    ZeroPadding2D,
)  # fmt: skip
from nnbackend.network import Network
from nnbackend.optimizers import SGD, Adam, Lion, Optimizer, RMSprop

__all__ = ["WarmupNetwork", "warmup_networks"]

_ROWS, _FEATURES, _OUTPUTS = 10, 6, 3
_IMAGE = (6, 5, 2)
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


#: Loss, data and optimizer. "bytes" are uint8 rows with integer labels; "numbers" are floats for both; "images" are
#: like bytes, for a network of convolutions. AdamW uses the kernels of Adam.
_VARIANTS: tuple[tuple[str, str, Optimizer], ...] = (
    ("softmax_cross_entropy", "bytes", SGD(_RATE, weight_decay=1e-3)),
    ("softmax_cross_entropy", "numbers", SGD(_RATE, momentum=0.9, nesterov=True)),
    ("sigmoid_cross_entropy", "numbers", Adam(_RATE)),
    ("mean_squared_error", "numbers", RMSprop(_RATE)),
    ("huber", "numbers", SGD(_RATE)),
    ("focal", "bytes", Lion(_RATE)),
    ("softmax_cross_entropy", "images", SGD(_RATE)),
)


def _train(backend: Backend, dtype: str, executor: str, loss: str, data: str, optimizer: Optimizer) -> None:
    chosen = _without_fast_executors(backend) if executor == "plain" else backend
    layers, shape = (_image_layers(), _IMAGE) if data == "images" else (_layers(), (_FEATURES,))
    scale = PIXEL_SCALE if data == "bytes" else None
    network = Network(layers, shape, chosen, dtype=dtype, seed=0, input_scale=scale)
    generator = np.random.default_rng(0)
    x: Any = generator.random((_ROWS, *shape))
    y: Any = np.full((_ROWS, _OUTPUTS), 1 / _OUTPUTS)
    if data != "numbers":
        x, y = (255 * x).astype(np.uint8), np.arange(_ROWS) % _OUTPUTS
    history = network.fit(
        x,
        y,
        epochs=1,
        batch_size=_BATCH_SIZE,
        loss=loss,
        optimizer=optimizer,
        sample_weight=np.linspace(0.5, 1.5, _ROWS),
        clip_norm=1.0 if loss == "huber" else None,
        clip_value=1.0 if loss == "focal" else None,
        ema=0.9 if loss == "focal" else None,
        label_smoothing=0.1 if loss == "softmax_cross_entropy" and data == "bytes" else 0.0,
        validation_data=(x, y),
        # Any metric needs the predictions.
        metrics=[lambda true, predicted: 0.0],
        augment=[Shift(1), Elastic(1, 1)] if data == "images" else (),
        verbose=False,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    # Few rows and many are predicted in different ways, also rows of the network's own dtype.
    for rows in (x, np.concatenate([x, x])):
        network.predict(rows)
        network.compile_predictor(len(rows))


def _layers() -> list[Layer]:
    """All layers and activations; the activations both inside dense layers and on their own."""
    dense = [Dense(_FEATURES, name, l1=1e-3, l2=1e-3) for name in ACTIVATIONS]
    activations = [Activation(name) for name in ACTIVATIONS]
    embeddings = [Embedding(2, 2), PeriodicEmbedding(3, waves=2), PeriodicEmbedding(waves=2)]
    on_tables = [ParametricActivation("selu"), Dropout(0.1), Scale(), MaxAbsNorm()]
    return [*embeddings, *dense, *activations, *on_tables, Dense(_OUTPUTS, use_bias=False)]


def _image_layers() -> list[Layer]:
    """All operations on images and normalisation; a frozen normalisation uses its running statistics."""
    return [
        Conv2D(4, 3, padding="same", activation="relu", l2=1e-3),
        BatchNormalization(),
        Conv2D(4, (2, 1), groups=4, use_bias=False),
        BatchNormalization(trainable=False),
        MaxPool2D(2),
        Residual([Conv2D(4, 3, padding="same", groups=2, activation="tanh"), LayerNormalization()]),
        # Numba computes some convolutions in other ways, depending on their channels and sizes.
        Residual([Conv2D(filters, size, padding="same") for filters, size in ((16, 3), (16, 3), (16, 5), (4, 3))]),
        AveragePool2D(2, 1, padding="same"),
        L2Pool2D((1, 2), padding="same"),
        ZeroPadding2D(1),
        Flatten(),
        Dense(_OUTPUTS),
    ]


def _without_fast_executors(backend: Backend) -> Backend:
    """A copy of the backend that runs every step call by call: its plain kernels serve steps with padded rows."""
    plain = copy.copy(backend)
    vars(plain)["executor"] = plain.plain_executor
    return plain
