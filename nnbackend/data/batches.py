"""How an epoch is divided into batches, and each batch among ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nnbackend.data.order import Order

__all__ = ["Batches", "Slice", "batch_slices", "part_of", "rows_of", "shard_slices"]


@dataclass(frozen=True)
class Slice:
    """One rank's rows of a batch, and of the following batches that are divided in the same way.

    Attributes
    ----------
    rows : int
        Number of rows; 0 if the batch is too short to give this rank any.
    first : int
        Rows of the batch that belong to lower ranks.
    batch : int
        Rows of the batch, on all ranks.
    repeats : int
        Number of batches.
    """

    rows: int
    first: int
    batch: int
    repeats: int


class Batches:
    """The batches of an epoch, and this rank's rows of them.

    Parameters
    ----------
    count : int
        Number of rows.
    batch_size : int
        Rows of a full batch, on all ranks.
    steps : int, optional
        Number of batches, all of them full. If not given, as many as it takes to see every row once; the last one
        may then be shorter.
    rank, ranks : int
        The number of this rank, and how many ranks there are.
    shards : sequence of int, optional
        Rows of each rank, if each rank has its own.

    Attributes
    ----------
    slices : list of Slice
        This rank's.
    sizes : (steps,) int64
        Rows of each batch, on all ranks.
    rows, own_rows : int
        Rows of an epoch, on all ranks and on this one.
    size : int
        This rank's rows of a full batch.
    sharded : bool
        Whether each rank has rows of its own.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        steps: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        shards: Sequence[int] | None = None,
    ) -> None:
        self.sharded = shards is not None
        self.size = rows_of(batch_size, rank, ranks)
        if shards is not None and steps is None:
            self.slices = shard_slices(shards, batch_size, rank)
        else:
            self.slices = batch_slices(count if steps is None else steps * batch_size, batch_size, rank, ranks)
        self._repeats = np.array([piece.repeats for piece in self.slices], np.int64)
        self.sizes: npt.NDArray[np.int64] = np.repeat(
            np.array([piece.batch for piece in self.slices], np.int64), self._repeats
        )
        self.rows = int(self.sizes.sum())
        self.own_rows = sum(piece.rows * piece.repeats for piece in self.slices)

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self.sizes)

    def part(self, order: Order) -> Order:
        """This rank's rows of an epoch, in the order in which it takes them; all of them if it has its own."""
        if self.sharded or self.own_rows == len(order):
            return order
        parts, begin = [], 0
        for piece in self.slices:
            end = begin + piece.repeats * piece.batch
            batches = order[begin:end].reshape(piece.repeats, piece.batch)
            parts.append(batches[:, piece.first : piece.first + piece.rows].reshape(-1))
            begin = end
        return np.concatenate(parts)

    def shares(self) -> npt.NDArray[np.float64]:
        """This rank's share of each batch."""
        return np.repeat([piece.rows / piece.batch for piece in self.slices], self._repeats)


def part_of(rows: int, rank: int, size: int) -> tuple[int, int]:
    """The range of a rank's rows, (first, last + 1): all ranks have the same number, or the first ones one more."""
    each, more = divmod(rows, size)
    begin = rank * each + min(rank, more)
    return begin, begin + each + (rank < more)


def rows_of(rows: int, rank: int, size: int) -> int:
    """The number of a rank's rows."""
    begin, end = part_of(rows, rank, size)
    return end - begin


def batch_slices(rows: int, batch_size: int, rank: int, size: int) -> list[Slice]:
    """A rank's slices of an epoch's batches, where every rank has access to every row.

    Parameters
    ----------
    rows : int
        Of the epoch.
    batch_size : int
    rank, size : int
    """
    full, rest = divmod(rows, batch_size)
    slices = []
    for batch, repeats in ((batch_size, full), (rest, 1)):
        if batch and repeats:
            begin, end = part_of(batch, rank, size)
            slices.append(Slice(end - begin, begin, batch, repeats))
    return slices


def shard_slices(counts: Sequence[int], batch_size: int, rank: int) -> list[Slice]:
    """A rank's slices, where each rank has its own rows: its part of `batch_size`, for as long as its rows last.

    Parameters
    ----------
    counts : sequence of int
        Rows of each rank.
    batch_size : int
        Of the whole batch; if ranks have different numbers of rows, the last batches are smaller.
    rank : int
    """
    have = np.array(counts)
    each = np.array([rows_of(batch_size, other, len(have)) for other in range(len(have))])
    steps = int((-(-have // each)).max())
    # No rank's number of rows changes between these steps.
    changes = sorted({0, steps, *(have // each), *(-(-have // each))})
    slices = []
    for step, following in pairwise(changes):
        taken = np.clip(have - step * each, 0, each)
        slices.append(Slice(int(taken[rank]), int(taken[:rank].sum()), int(taken.sum()), int(following - step)))
    return slices
