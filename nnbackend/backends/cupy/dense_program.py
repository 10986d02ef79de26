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

__all__ = [
    "HEAD_INTS",
    "KINDS",
    "MOST_OUTPUTS",
    "SHARED_BYTES",
    "STAGE_INTS",
    "THREADS",
    "TILE",
    "DenseProgram",
    "UnsupportedStepError",
    "address",
]

THREADS = 256
"""Threads of a block of both kernels."""

SHARED_BYTES = 48 << 10
"""Shared memory that a block has without asking for more."""

MOST_OUTPUTS = 2 * THREADS
"""The loss stages a row of outputs and of targets in the block's scratch memory."""

TILE = 32
"""Rows and columns of a tile of a weight gradient."""

HEAD_INTS, STAGE_INTS = 14, 10
"""Numbers in the head of a program and in each of its stages."""

KINDS = (
    "dense", "activate", "drop", "loss", "activation_gradient", "input_gradient", "scale_columns", "normalize", "store",
)  # fmt: skip
"""Kinds of stages, in the order of the kernels' enum."""


class UnsupportedStepError(Exception):
    """Two kernels cannot compute a step; the message says why."""


def address(array: Array) -> int:
    """The address of an array on the device."""
    return int(array.data.ptr)


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
    tiles : (t, 14) int32
        Of the second kernel.
    words : (w,) int64
    numbers : (m,) float64
    optimizer : str
        "sgd", "adam", "rmsprop" or "lion".
    slots : int
        Columns of all activations and gradients of a row.
    weights : int
        Elements of weights that the first kernel reads for each block.
    parts : int
        Number of parts of weights with penalties, each of which has a block of the first kernel.
    tables : int
        Number of tables of learning rates.
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
    tables: int
    arrays: list[Array] = field(repr=False)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for the programs of networks that can run together."""
        sizes = len(self.words), len(self.numbers)
        return self.dtype.char, self.ints.tobytes(), self.tiles.tobytes(), self.optimizer, *sizes

    @property
    def stages(self) -> npt.NDArray[np.int32]:
        """(s, `STAGE_INTS`): the kind, which slots, the extents, and so on; see the kernels."""
        return self.ints[HEAD_INTS : HEAD_INTS + STAGE_INTS * int(self.ints[6])].reshape(-1, STAGE_INTS)

    def shared_bytes(self, rows: int) -> int:
        """Shared memory of a block of the first kernel that takes this many rows."""
        tables = 8 * (len(self.words) + len(self.numbers)) + 4 * len(self.ints)
        return (self.slots + 4 * THREADS) * rows * self.dtype.itemsize + tables
