"""How many threads a kernel gets: the one place where grids and blocks are computed.

The kernels loop from a thread's first element in steps of the grid, so these numbers are a matter of speed, except
where a docstring says that the kernel relies on them.
"""

from __future__ import annotations

from typing import NamedTuple

from nnbackend.backends.cupy.interface import Dimensions

__all__ = ["ONE_BLOCK", "Launch", "chunk_rows", "column_sums", "elements", "matrix", "warp_rows"]

_LANES = 32
_THREADS = 256
_MOST_BLOCKS = 4096
"""Enough to fill any GPU several times over; beyond it, threads loop."""
_GRID_Y_LIMIT = 65_535
_SUM_THREADS = 16
"""Threads that share one column in a sum over rows; a power of two."""
_CHUNK_ROWS = 512
_MOST_CHUNKS = 1024


class Launch(NamedTuple):
    """A grid of blocks of threads."""

    grid: Dimensions
    block: Dimensions

    @property
    def threads(self) -> int:
        """Threads of a block."""
        count = 1
        for extent in self.block:
            count *= extent
        return count

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        count = 1
        for extent in self.grid:
            count *= extent
        return count


#: One block that loops over everything, for sums that end in one number. A power of two of threads.
ONE_BLOCK = Launch((1,), (_THREADS,))


def elements(count: int) -> Launch:
    """One thread for each of `count` elements of a flat buffer."""
    return Launch((min(_parts(count, _THREADS), _MOST_BLOCKS),), (_THREADS,))


def matrix(rows: int, columns: int, most_blocks: int | None = None) -> Launch:
    """One thread per element of a matrix; x walks along a row, in the block and in the grid's y.

    A block is as wide as the row, up to a warp, and has a power of two of threads, on which sums over a block rely.

    Parameters
    ----------
    rows, columns : int
    most_blocks : int, optional
        Where every block leaves a partial sum, their number must be small.
    """
    width = min(_LANES, 1 << (columns - 1).bit_length())
    height = _THREADS // width
    across = min(_parts(columns, width), _GRID_Y_LIMIT if most_blocks is None else max(1, most_blocks // 4))
    down = _parts(rows, height)
    if most_blocks is not None:
        down = min(down, max(1, most_blocks // across))
    return Launch((down, across), (width, height))


def warp_rows(rows: int) -> Launch:
    """One warp for each row, four to a block; the kernels rely on ``block[0] == 32`` and do not loop."""
    return Launch((_parts(rows, 4),), (_LANES, 4))


def chunk_rows(rows: int) -> int:
    """Rows that one block sums of a matrix with `rows` rows: all of a usual minibatch."""
    return max(_CHUNK_ROWS, _parts(rows, _MOST_CHUNKS))


def column_sums(rows: int, columns: int, rows_of_chunk: int) -> Launch:
    """Blocks of 32 columns for the sum over rows, one row of blocks a chunk; relied on by the kernel."""
    return Launch((_parts(columns, _LANES), _parts(rows, rows_of_chunk)), (_LANES, _SUM_THREADS))


def _parts(count: int, size: int) -> int:
    return -(-count // size)
