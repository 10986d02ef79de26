"""Data that arrive in pieces: generated during training, or too large for memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nnbackend.errors import InvalidInputError
from nnbackend.support.checks import positive_integer

__all__ = ["BatchStream"]


class BatchStream:
    """Rows that arrive in pieces; every epoch starts with the first piece.

    `Network.fit`, `Network.evaluate` and ``validation_data`` take one instead of `x` and `y`. While the device trains,
    another thread fetches the next rows; only some tens of megabytes are held at a time. Pieces may have any size,
    independent of the batches. With ``shuffle=True`` the rows that are held at the same time are mixed.

    Parameters
    ----------
    pieces : callable
        Called as ``pieces(epoch)`` when an epoch begins, with the number of epochs the network has been trained for;
        and once before, with 0, for its first piece alone. Returns an iterable of (x, y) or (x, y, sample_weight), all
        of the same kind, in shapes and types that `fit` takes. The same number should give the same rows, so that runs
        are repeatable.
    rows : int
        Rows of an epoch; further rows are not read.

    Raises
    ------
    InvalidInputError
        `pieces` is not a function, or `rows` not an integer above 0. During training: a piece is not what `fit` takes
        or differs in kind from the first, or the pieces end too early; the network then has the weights with which
        that epoch began.

    Notes
    -----
    Training uses the weights of rows unchanged, and scales those of arrays to a mean of 1. The loss of an evaluation is
    a weighted mean in both cases.
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
