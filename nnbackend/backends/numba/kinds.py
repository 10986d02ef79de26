"""Declarations of compiled functions, the state of a thread, and its share of the work.

All compiled functions have the same arguments, which are addresses:

* `address`: the line's record, whose fields are named as in the operation's declaration; see :func:`declared_record`.
* `state`: the state of the calling thread, a record `STATE`.
* `scratch`: `SCRATCH` bytes of temporary memory for updates, followed by as many as the line asks for.

Arrays have no gaps between rows. Threads share the rows of a batch, or parts of a result. Each element is computed by
one thread, and its result does not depend on which one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nnbackend.backends.declaration import Call
from nnbackend.backends.numba.jit import as_written, internal_as_written
from nnbackend.backends.numba.lines import LineKind, declared_record
from nnbackend.backends.numba.records import INTEGER, REAL, Record, at
from nnbackend.backends.numba.updates import CONSTANTS, RECORD

__all__ = ["COPIES", "KINDS", "SCRATCH", "STATE", "block", "compiled", "share"]

#: The state of a thread: step counts of the epoch, the network and the optimiser, as in the counter; the index of the
#: thread, and the number of threads.
STATE = Record.of("state", place=INTEGER, step=INTEGER, update=INTEGER, thread=INTEGER, threads=INTEGER)

#: Bytes for an optimiser's constants and the record of its arrays.
SCRATCH = 8 * (CONSTANTS + RECORD)

#: A field of lines that write or read the batch: bytes from a thread's copy of it to that of the next, or 0 if there is
#: only one; see `input_copies.py`.
COPIES: dict[str, Callable[[Call], int]] = {"copies": lambda call: call.arguments.get("copies", 0)}

#: Every compiled function by name.
KINDS: dict[str, LineKind] = {}


def compiled(
    *operations: str,
    work: Callable[[Call], int],
    accepts: Callable[[Call], bool] = lambda call: True,
    integers: Mapping[str, Callable[[Call], int]] | None = None,
    reals: Mapping[str, Callable[[Call], float]] | None = None,
    follows: str = "",
    is_product: bool = False,
    updates: bool = False,
    calls_product: bool = False,
    scratch: Callable[[Call], int] = lambda call: 0,
    record: Record | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a maker of compiled functions, called as ``make(tile_shape, real, record)``.

    Parameters
    ----------
    *operations : str
        The operation of the contract that it computes; several if they have the same record.
    work, accepts, follows, is_product
        As in `LineKind`.
    integers, reals : dict of callable
        Additional fields of the record, computed from the call.
    updates : bool
        Whether the line may end with an update; its record then contains the address of a record `UPDATE`, or 0.
    calls_product : bool
        Whether it calls a matrix product; its record then contains the addresses of one with the line's epilogue and of
        one that only stores its sums.
    scratch : callable
        Takes a call; returns the bytes of temporary memory that a thread needs.
    record : Record, optional
        Replaces the record derived from the declaration.
    """
    integers, reals = integers or {}, reals or {}
    more = [*((name, INTEGER) for name in integers), *((name, REAL) for name in reals)]
    if updates:
        more.append(("update", INTEGER))
    if calls_product:
        more += [("product", INTEGER), ("partial_product", INTEGER)]

    def register(make: Callable[..., Any]) -> Callable[..., Any]:
        name = make.__name__
        chosen = record or declared_record(operations[0], *more)
        KINDS[name] = LineKind(
            name, operations, chosen, make, accepts, {**integers, **reals}, work, follows, is_product, scratch
        )
        return make

    return register


@as_written
def share(size, state):
    """A thread's share of `size` items, as a half-open range."""
    s = at(STATE, state)
    return size * s.thread // s.threads, size * (s.thread + 1) // s.threads


@internal_as_written
def block(rows, columns, by_columns, tile_shape, state):
    """A thread's share of a matrix: half-open ranges of rows and columns.

    Columns are split where tiles begin; see `TileShape.panel_starts`.
    """
    if by_columns:
        tile, narrow = tile_shape.columns, tile_shape.narrow
        panels = (columns + tile - 1) // tile
        begin, end = share(panels, state)
        # How much earlier the last panel begins.
        earlier = tile - narrow if panels > 1 and columns - (panels - 2) * tile <= tile + tile_shape.lanes else 0
        left = begin * tile - (earlier if begin == panels - 1 else 0)
        right = columns if end == panels else end * tile - (earlier if end == panels - 1 else 0)
        return 0, rows, left, right
    begin, end = share(rows, state)
    return begin, end, 0, columns
