"""Grid and block dimensions of all kernel launches.

The kernels use grid-stride loops, so these numbers affect only speed, unless a docstring says that the kernel relies on
them.
"""

from __future__ import annotations

from typing import NamedTuple

from nnbackend.backends.cupy.interface import Dimensions

__all__ = [
    "MOST_PLANES", "ONE_BLOCK", "TILE_COLUMNS", "Launch", "chunk_rows", "chunks_of_product", "column_sums", "elements",
    "matrix", "product_tiles", "warp_rows",
]  # fmt: skip

_LANES = 32
_THREADS = 256
_MOST_BLOCKS = 4096
"""Enough to fill any GPU several times over; for more elements, threads loop."""
_GRID_Y_LIMIT = 65_535
MOST_PLANES = 65_535
"""The longest second and third axis of a grid."""
_SUM_THREADS = 16
"""Threads for each column in a sum over rows; a power of two."""
_CHUNK_ROWS = 512
_MAX_CHUNKS = 1024
TILE_COLUMNS = (32, 64)
"""Widths of the tiles of products in ``convolution.cu``; a block computes 4096 elements."""
_TILE = 4096
_PRODUCT_CHUNK = 256
"""Fewest terms of a sum that a block adds up, so that the sums of the chunks are few."""
_PRODUCT_BLOCKS = 512
"""Blocks of a product beyond which sums are not divided."""


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


#: One block that loops over everything, for sums to a single number. Its number of threads is a power of two.
ONE_BLOCK = Launch((1,), (_THREADS,))


def elements(count: int, max_blocks: int = _MOST_BLOCKS) -> Launch:
    """One thread for each of `count` elements of a flat buffer, in at most `max_blocks` blocks."""
    return Launch((min(_parts(count, _THREADS), max_blocks),), (_THREADS,))


def matrix(rows: int, columns: int, max_blocks: int | None = None) -> Launch:
    """One thread per element of a matrix; x runs along a row within a block, y of the grid across blocks.

    A block is as wide as the row, up to a warp. Its number of threads is a power of two; sums over a block rely on
    this.

    Parameters
    ----------
    rows, columns : int
    max_blocks : int, optional
        Maximum number of blocks, for kernels in which every block writes a partial sum.
    """
    width = min(_LANES, 1 << (columns - 1).bit_length())
    height = _THREADS // width
    across = min(_parts(columns, width), _GRID_Y_LIMIT if max_blocks is None else max(1, max_blocks // 4))
    down = _parts(rows, height)
    if max_blocks is not None:
        down = min(down, max(1, max_blocks // across))
    return Launch((down, across), (width, height))


def warp_rows(rows: int) -> Launch:
    """One warp for each row, four to a block; the kernels rely on ``block[0] == 32`` and do not loop."""
    return Launch((_parts(rows, 4),), (_LANES, 4))


def chunk_rows(rows: int) -> int:
    """Number of rows that one block sums; all rows of a typical minibatch."""
    return max(_CHUNK_ROWS, _parts(rows, _MAX_CHUNKS))


def column_sums(rows: int, columns: int, rows_of_chunk: int) -> Launch:
    """A grid for sums over rows: blocks are 32 columns wide, with one row of blocks per chunk. The kernel relies on
    this."""
    return Launch((_parts(columns, _LANES), _parts(rows, rows_of_chunk)), (_LANES, _SUM_THREADS))


def product_tiles(rows: int, columns: int, tile_columns: int, planes: int) -> Launch:
    """Blocks for the tiles of `planes` products; the kernels rely on this."""
    grid = (_parts(rows, _TILE // tile_columns), _parts(columns, tile_columns), planes)
    return Launch(grid, (_THREADS,))


def chunks_of_product(blocks: int, terms: int, most: int = MOST_PLANES) -> tuple[int, int]:
    """Into how many chunks to divide the terms of sums, so that many blocks are busy, and the length of a chunk.

    Parameters
    ----------
    blocks : int
        Of the product without chunks.
    terms : int
    most : int
        Maximum number of chunks.
    """
    chunks = min(max(1, _PRODUCT_BLOCKS // blocks), _parts(terms, _PRODUCT_CHUNK), most)
    length = _parts(terms, chunks)
    return _parts(terms, length), length


def _parts(count: int, size: int) -> int:
    return -(-count // size)
