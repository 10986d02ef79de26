"""The tables of a training step for the two kernels in ``cuda/dense_step.cu``.

The first, of ints, is equal for all networks with the same layers and the same kind of batch. What differs between such
networks is in the other two, with a line for each: addresses, seeds and strides as 64-bit integers, and hyperparameters
as doubles.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array

__all__ = ["MOST_OUTPUTS", "SHARED_BYTES", "THREADS", "TILE", "DenseProgram"]

THREADS = 256
"""Threads of a block of both kernels."""

SHARED_BYTES = 48 << 10
"""Shared memory that a block has without asking for more."""

MOST_OUTPUTS = 2 * THREADS
"""The loss stages a row of outputs and of targets in the block's scratch memory."""

TILE = 32
"""Rows and columns of a tile of a weight gradient."""


@dataclass
class DenseProgram:
    """A step of one network.

    Attributes
    ----------
    rows : int
        Of the batch.
    dtype : numpy dtype
        Of the network.
    ints : (n,) int32
        The program of the first kernel: a head, its stages, and parts of weights with penalties.
    tiles : (t, 11) int32
        Of the second kernel.
    words : (w,) int64
    numbers : (m,) float64
    optimizer : str
        "sgd", "adam" or "rmsprop".
    slots : int
        Columns of all activations and gradients of a row.
    weights : int
        Elements of weights that the first kernel reads for each block.
    parts : int
        Number of parts of weights with penalties, each of which has a block of the first kernel.
    products : int
        Multiplications of the step for each row.
    arrays : list
        Everything that `words` has addresses of, to keep it alive.
    """

    rows: int
    dtype: np.dtype[np.generic]
    ints: npt.NDArray[np.int32]
    tiles: npt.NDArray[np.int32]
    words: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.float64]
    optimizer: str
    slots: int
    weights: int
    parts: int
    products: int
    arrays: list[Array] = field(repr=False)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for the programs of networks that can run together."""
        sizes = len(self.words), len(self.numbers)
        return self.dtype.char, self.ints.tobytes(), self.tiles.tobytes(), self.optimizer, *sizes

    def shared_bytes(self, rows: int) -> int:
        """Shared memory of a block of the first kernel that takes this many rows."""
        tables = 8 * (len(self.words) + len(self.numbers)) + 4 * len(self.ints)
        return (self.slots + 4 * THREADS) * rows * self.dtype.itemsize + tables
