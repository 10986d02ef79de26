"""Who takes which rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["Slice", "batch_slices", "part_of", "rows_of", "shard_slices"]


@dataclass(frozen=True)
class Slice:
    """One rank's rows of a batch, and of the batches after it that are cut alike.

    Attributes
    ----------
    rows : int
        How many; a short batch may leave a rank none.
    first : int
        How many of the batch's rows belong to the ranks before.
    batch : int
        Rows of the batch, on all ranks.
    repeats : int
        How many batches.
    """

    rows: int
    first: int
    batch: int
    repeats: int


def part_of(rows: int, rank: int, size: int) -> tuple[int, int]:
    """First and last + 1 of the rows that are a rank's: as many as the others', or one more on the first ranks."""
    each, more = divmod(rows, size)
    begin = rank * each + min(rank, more)
    return begin, begin + each + (rank < more)


def rows_of(rows: int, rank: int, size: int) -> int:
    """How many rows are a rank's."""
    begin, end = part_of(rows, rank, size)
    return end - begin


def batch_slices(rows: int, batch_size: int, rank: int, size: int) -> list[Slice]:
    """A rank's slices of an epoch's batches, where every rank could have every row.

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
    """A rank's slices, where each has rows of its own: its part of `batch_size`, for as long as its rows last.

    Parameters
    ----------
    counts : sequence of int
        Rows of each rank.
    batch_size : int
        Of the whole batch; with fewer rows on some ranks than on others the last batches are smaller.
    rank : int
    """
    have = np.array(counts)
    each = np.array([rows_of(batch_size, other, len(have)) for other in range(len(have))])
    steps = int((-(-have // each)).max())
    # Between these steps nothing changes for any rank.
    changes = sorted({0, steps, *(have // each), *(-(-have // each))})
    slices = []
    for step, following in pairwise(changes):
        taken = np.clip(have - step * each, 0, each)
        slices.append(Slice(int(taken[rank]), int(taken[:rank].sum()), int(taken.sum()), int(following - step)))
    return slices
