"""What the other process of `ahead.py` compiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.backends.numba import epoch
from nnbackend.backends.numba.compiled import address_of
from nnbackend.backends.numba.dense_products import compiled_product, product_callback
from nnbackend.backends.numba.jit import is_on_disk
from nnbackend.backends.numba.tile_shape import TileShape

__all__ = ["run"]


def run(jobs: Sequence[dict[str, Any]]) -> None:
    """Compile, and write to the cache on disk, until that fails: the process that started this one waits for products.

    Parameters
    ----------
    jobs : sequence of dict
        One of ``{"product": attributes of a TileShape}``, ``{"function": arguments of address_of}`` and
        ``{"epoch": None}``.
    """
    for job in jobs:
        ((kind, what),) = job.items()
        if kind == "product":
            shape = TileShape(**what)
            compiled_product(shape)
            if not is_on_disk(product_callback(shape)):
                return
        elif kind == "function":
            name, dtype, rule = what
            address_of(name, np.dtype(dtype), rule)
        else:
            epoch.run.compile(epoch.SIGNATURE)
