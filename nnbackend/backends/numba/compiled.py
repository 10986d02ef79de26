"""The compiled functions called by the lines of a program, one for each operation.

A function is compiled for the network's dtype when a program first needs it, and cached on disk. The epoch function
only receives its address. To compile another operation, write its function in `forward_operations.py` or
`backward_operations.py`, under the decorator :func:`~nnbackend.backends.numba.kinds.compiled`.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
from numba import types

from nnbackend.backends.declaration import Call

# Imported to register the functions that they declare.
from nnbackend.backends.numba import (  # noqa: F401
    backward_operations,
    convolutions,
    forward_operations,
    image_operations,
    normalization_operations,
    training_lines,
)
from nnbackend.backends.numba.dense_products import product_address
from nnbackend.backends.numba.jit import compile_callback
from nnbackend.backends.numba.kinds import KINDS
from nnbackend.backends.numba.lines import LineKind
from nnbackend.backends.numba.tile_shape import FLOAT32, FLOAT64, TileShape
from nnbackend.backends.numba.updates import RULES

__all__ = ["KINDS", "address_of", "kind_of", "product_for"]


def kind_of(call: Call) -> LineKind | None:
    """The kind of line for a call; None if no compiled function supports it."""
    for kind in _by_operation().get(call.operation, ()):
        if kind.accepts(call):
            return kind
    return None


@functools.cache
def _by_operation() -> dict[str, list[LineKind]]:
    found: dict[str, list[LineKind]] = {}
    for kind in KINDS.values():
        for operation in kind.operations:
            found.setdefault(operation, []).append(kind)
    return found


def address_of(name: str, dtype: np.dtype[Any], rule: int | None = None) -> int:
    """Address of a compiled function, valid for the lifetime of the process.

    Parameters
    ----------
    name : str
        A key of `KINDS`.
    dtype : numpy dtype
        float32 or float64.
    rule : int, optional
        The optimiser's, of `updates.py`, if the line ends with an update.
    """
    address: int = _compiled(name, dtype, rule).address
    return address


def product_for(dtype: np.dtype[Any], rule: int | None = None) -> int:
    """Address of the matrix product that a line calls, with the arguments of `address_of`."""
    address: int = product_address(_tile_shape(dtype, rule))
    return address


def _tile_shape(dtype: np.dtype[Any], rule: int | None) -> TileShape:
    tile_shape = FLOAT32 if dtype == np.float32 else FLOAT64
    return tile_shape if rule is None else replace(tile_shape, epilogue=RULES[rule].name)


@functools.cache
def _compiled(name: str, dtype: np.dtype[Any], rule: int | None) -> Any:
    tile_shape = _tile_shape(dtype, rule)
    kind = KINDS[name]
    function = kind.make(tile_shape, dtype.type, kind.record)
    # The name distinguishes the files on disk.
    function.__qualname__ = f"{name}[{dtype}, {tile_shape.epilogue}]"
    return compile_callback(function, types.void(*[types.intp] * 3))
