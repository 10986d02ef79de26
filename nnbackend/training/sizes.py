"""How much memory training takes."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from nnbackend.data.batch_stream import BatchStream
from nnbackend.layers import follow_shapes
from nnbackend.network import Network
from nnbackend.optimizers import OPTIMIZERS, Optimizer
from nnbackend.support.memory import memory_explained

__all__ = ["training_memory"]

_ADVICE = (
    "Give a smaller batch_size, bring the rows portion by portion with stream=True, choose an optimizer with fewer "
    "slots (SGD without momentum has none), dtype='float32', or fewer units."
)


def training_memory(
    network: Network, x: Any, batch_size: int | None, optimizer: Optimizer | str
) -> AbstractContextManager[None]:
    """Held by `fit`: where memory does not suffice, the error says for what."""
    return memory_explained(network.backend, "training", lambda: _sizes(network, x, batch_size, optimizer), _ADVICE)


def _sizes(network: Network, x: Any, batch_size: int | None, optimizer: Optimizer | str) -> dict[str, int]:
    layout, itemsize = network.model.layout, network.dtype.itemsize
    weights, trained = layout.size * itemsize, layout.trainable_size * itemsize
    made: Any = OPTIMIZERS.get(optimizer) if isinstance(optimizer, str) else optimizer
    sizes = {
        "weights": weights,
        "their gradients and two copies to go back to": trained + 2 * weights,
        "the optimizer's slots": len(getattr(made, "slots", ())) * trained,
    }
    if not isinstance(x, BatchStream):
        bytes_each = 1 if getattr(x, "dtype", None) == np.uint8 else network.dtype.itemsize
        sizes["all rows"] = math.prod(np.shape(x)) * bytes_each
    shapes, last = follow_shapes(network.layers, network.input_shape)
    # What every layer gives, and the gradient that comes back.
    widths = 2 * sum(math.prod(shape) for shape in (*shapes, last))
    sizes["about, for a batch"] = (32 if batch_size is None else batch_size) * widths * network.dtype.itemsize
    return sizes
