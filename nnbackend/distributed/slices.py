"""Divide the rows of a batch among the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["Slice", "batch_slices", "part_of", "rows_of", "shard_slices"]


@dataclass(frozen=True)
class Slice:
    """One rank's rows of a batch, and of the following batches that are divided in the same way.

    Attributes
    ----------
    rows : int
        Number of the rank's rows; 0 is possible in a short batch.
    first : int
        Number of the batch's rows on lower ranks.
    batch : int
        Rows of the batch on all ranks.
    repeats : int
        Number of batches.
    """

    rows: int
    first: int
    batch: int
    repeats: int


def part_of(rows: int, rank: int, size: int) -> tuple[int, int]:
    """Begin and end of a rank's rows; the first ranks have one row more if the rows cannot be divided evenly."""
    each, more = divmod(rows, size)
    begin = rank * each + min(rank, more)
    return begin, begin + each + (rank < more)


def rows_of(rows: int, rank: int, size: int) -> int:
    """The number of a rank's rows."""
    begin, end = part_of(rows, rank, size)
    return end - begin


def batch_slices(rows: int, batch_size: int, rank: int, size: int) -> list[Slice]:
    """A rank's slices of an epoch's batches if all ranks have the same rows.

    Parameters
    ----------
    rows : int
        Rows of the epoch.
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
    """A rank's slices if each rank has its own rows: its part of `batch_size`, while its rows last.

    Parameters
    ----------
    counts : sequence of int
        Rows of each rank.
    batch_size : int
        Size of the whole batch; if some ranks have fewer rows than others, the last batches are smaller.
    rank : int
    """
    have = np.array(counts)
    each = np.array([rows_of(batch_size, other, len(have)) for other in range(len(have))])
    steps = int((-(-have // each)).max())
    # Between these steps, the division is the same for all ranks.
    changes = sorted({0, steps, *(have // each), *(-(-have // each))})
    slices = []
    for step, following in pairwise(changes):
        taken = np.clip(have - step * each, 0, each)
        slices.append(Slice(int(taken[rank]), int(taken[:rank].sum()), int(taken.sum()), int(following - step)))
    return slices
