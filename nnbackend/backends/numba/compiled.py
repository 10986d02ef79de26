"""The compiled functions called by the lines of a program, one for each operation.

A function is compiled for the network's dtype when a program first needs it, and cached on disk. The epoch function
only receives its address. To compile another operation, write its function in `forward_operations.py` or
`backward_operations.py`, under the decorator :func:`~nnbackend.backends.numba.kinds.compiled`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import asdict, replace
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
    table_operations,
    training_lines,
)
from nnbackend.backends.numba.ahead import begin, tell
from nnbackend.backends.numba.dense_products import product_address, product_callback
from nnbackend.backends.numba.jit import cache_folder, callback_of, compiled, is_on_disk
from nnbackend.backends.numba.kinds import KINDS
from nnbackend.backends.numba.lines import LineKind
from nnbackend.backends.numba.tile_shape import TileShape, shape_for
from nnbackend.backends.numba.updates import RULES

__all__ = ["KINDS", "address_of", "compile_together", "kind_of", "product_for"]

#: Seconds that it takes to compile a function and a product, on the two cores of a cloud machine, of which one compiles
#: products.
_SECONDS, _PRODUCT_SECONDS = 0.2, 0.5


#: Addresses of compiled functions, by the arguments of `address_of`.
_addresses: dict[tuple[str, np.dtype[Any], int | None], int] = {}


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
    key = name, dtype, rule
    if key not in _addresses:
        _addresses[key] = compiled(_callback(*key)).address
    return _addresses[key]


def product_for(dtype: np.dtype[Any], rule: int | None = None) -> int:
    """Address of the matrix product that a line calls, with the arguments of `address_of`."""
    address: int = product_address(_tile_shape(dtype, rule))
    return address


def _tile_shape(dtype: np.dtype[Any], rule: int | None) -> TileShape:
    tile_shape = shape_for(dtype)
    return tile_shape if rule is None else replace(tile_shape, epilogue=RULES[rule].name)


def compile_together(lines: Iterable[tuple[str, np.dtype[Any], int | None]]) -> None:
    """Compile the functions of lines, each given by the arguments of `address_of`, and their products at the same
    time."""
    new = [key for key in dict.fromkeys(lines) if key not in _addresses]
    if not new:
        return
    shapes = dict.fromkeys(
        shape
        for name, dtype, rule in new
        if KINDS[name].calls_product
        for shape in (_tile_shape(dtype, None), _tile_shape(dtype, rule))
    )
    products = [shape for shape in shapes if not is_on_disk(product_callback(shape))]
    functions = [key for key in new if not is_on_disk(_callback(*key))]
    if products:
        folder = cache_folder(product_callback(products[0]))
        tell(_SECONDS * len(functions) + _PRODUCT_SECONDS * len(products), folder)
        if folder is not None:
            # The other process begins with the products, and continues from the end, so that both meet.
            begin(
                [
                    *({"product": asdict(shape)} for shape in products),
                    {"epoch": None},
                    *({"function": [name, str(dtype), rule]} for name, dtype, rule in reversed(functions)),
                ]
            )
    for key in new:
        address_of(*key)


@functools.cache
def _callback(name: str, dtype: np.dtype[Any], rule: int | None) -> Any:
    """The function before it is compiled."""
    tile_shape = _tile_shape(dtype, rule)
    kind = KINDS[name]
    function = kind.make(tile_shape, dtype.type, kind.record)
    # The name distinguishes the files on disk.
    function.__qualname__ = f"{name}[{dtype}, {tile_shape.epilogue}]"
    return callback_of(function, types.void(*[types.intp] * 3))
