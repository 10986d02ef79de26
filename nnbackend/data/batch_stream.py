"""Data that come piece by piece: made while training goes on, or read from what no memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nnbackend.errors import InvalidInputError
from nnbackend.support.checks import positive_integer

__all__ = ["BatchStream"]


class BatchStream:
    """Rows to train on that come piece by piece, from the start in every epoch.

    `Network.fit` takes one in place of `x` and `y`, `Network.evaluate` and ``validation_data`` do too. While the device
    trains, the next rows are fetched on a thread of their own; only some tens of megabytes are held at a time. Batches
    are cut anew, so pieces may be of any size; with ``shuffle=True`` the rows that are held together are mixed.

    Parameters
    ----------
    pieces : callable
        Called as ``pieces(epoch)``, with the number of epochs the network has been trained for, when an epoch begins;
        and with 0 once before, for its first piece alone. Returns an iterable of (x, y) or (x, y, sample_weight), all
        of them alike, in shapes and types that `fit` takes. The same number should give the same rows, so that a run
        can be repeated.
    rows : int
        How many rows an epoch has; more are not asked for.

    Raises
    ------
    InvalidInputError
        `pieces` is no function, `rows` no whole number above 0. While training: a piece is not what `fit` takes, or
        unlike the first, or they end too early; the network then has the weights with which that epoch began.

    Notes
    -----
    Weights of rows are taken as they are; `fit` scales those of arrays to a mean of 1.
    """

    def __init__(self, pieces: Callable[[int], Iterable[tuple[Any, ...]]], rows: int) -> None:
        if not callable(pieces):
            raise InvalidInputError(
                f"pieces must be a function that returns an iterable of (x, y) for an epoch, received {pieces!r}; "
                "a generator can be gone through only once, so give the function that makes it"
            )
        self.pieces = pieces
        self.rows = positive_integer("rows", rows)

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"<BatchStream of {self.rows:,} rows an epoch>"
