"""How an epoch is divided into batches, and batches among ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnbackend.data.feeds import Order
from nnbackend.distributed.communicator import Communicator
from nnbackend.distributed.slices import batch_slices, rows_of, shard_slices

__all__ = ["Division"]


class Division:
    """The batches of an epoch, and this rank's rows of them.

    Parameters
    ----------
    communicator : Communicator
    count : int
        How many rows there are.
    batch_size : int
        Rows of a full batch, on all ranks.
    steps_per_epoch : int, optional
        As many as it takes to see every row once, if not given.
    shards : sequence of int, optional
        If each rank has rows of its own: how many.

    Attributes
    ----------
    slices : list of Slice
        This rank's.
    rows, own_rows : int
        That an epoch sees, on all ranks and on this one.
    batch_size : int
        This rank's rows of a full batch.
    sizes : (steps,) int64
        Rows of each batch, on all ranks.
    sharded : bool
        Whether each rank has rows of its own.
    """

    def __init__(
        self,
        communicator: Communicator,
        count: int,
        batch_size: int,
        steps_per_epoch: int | None = None,
        shards: Sequence[int] | None = None,
    ) -> None:
        rank, size = communicator.rank, communicator.size
        self.sharded = shards is not None
        self.batch_size = rows_of(batch_size, rank, size)
        if shards is not None and steps_per_epoch is None:
            self.slices = shard_slices(shards, batch_size, rank)
        else:
            rows = count if steps_per_epoch is None else steps_per_epoch * batch_size
            self.slices = batch_slices(rows, batch_size, rank, size)
        self.sizes: npt.NDArray[np.int64] = np.repeat(
            [piece.batch for piece in self.slices], [piece.repeats for piece in self.slices]
        )
        self.rows = int(self.sizes.sum())
        self.own_rows = sum(piece.rows * piece.repeats for piece in self.slices)

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self.sizes)

    def part(self, order: Order) -> Order:
        """This rank's rows of an epoch, in the order it takes them; rows of its own all are."""
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
        shares = [piece.rows / piece.batch for piece in self.slices]
        return np.repeat(shares, [piece.repeats for piece in self.slices])
