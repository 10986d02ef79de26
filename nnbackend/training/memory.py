"""What a training run needs memory for, said if there is not enough."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from nnbackend.data.batch_stream import BatchStream
from nnbackend.layers import follow_shapes
from nnbackend.network import Network
from nnbackend.optimizers import OPTIMIZERS
from nnbackend.support.memory import memory_explained
from nnbackend.training.plan import DEFAULT_BATCH, Arguments

__all__ = ["training_memory"]

_ADVICE = (
    "Give a smaller batch_size, bring the rows portion by portion with stream=True, choose an optimizer with fewer "
    "slots (SGD without momentum has none), dtype='float32', or fewer units."
)


def training_memory(network: Network, given: Arguments) -> AbstractContextManager[None]:
    """A context in which out-of-memory errors say what needed the memory."""
    return memory_explained(network.backend, "training", lambda: _sizes(network, given), _ADVICE)


def _sizes(network: Network, given: Arguments) -> dict[str, int]:
    layout, itemsize = network.model.layout, network.dtype.itemsize
    weights, trained = layout.size * itemsize, layout.trainable_size * itemsize
    optimizer = given.optimizer
    made: Any = OPTIMIZERS.get(optimizer) if isinstance(optimizer, str) else optimizer
    sizes = {
        "weights": weights,
        "their gradients and a copy to go back to": trained + weights,
        "the optimizer's slots": len(getattr(made, "slots", ())) * trained,
        **({} if given.ema is None else {"the average of the weights": 2 * trained}),
    }
    if not isinstance(given.x, BatchStream):
        bytes_each = 1 if getattr(given.x, "dtype", None) == np.uint8 else network.dtype.itemsize
        sizes["all rows"] = math.prod(np.shape(given.x)) * bytes_each
    shapes, last = follow_shapes(network.layers, network.input_shape)
    # The output of every layer, and its gradient.
    widths = 2 * sum(math.prod(shape) for shape in (*shapes, last))
    most = len(given.x) if hasattr(given.x, "__len__") else DEFAULT_BATCH
    rows = min(DEFAULT_BATCH if given.batch_size is None else given.batch_size, most)
    sizes["about, for a batch"] = rows * widths * network.dtype.itemsize
    return sizes
