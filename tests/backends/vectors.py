"""Vector forms of other CPUs, and guarded memory."""

from __future__ import annotations

import numpy as np
import pytest

from nnbackend.backends.numba.tile_shape import FLOAT32, FLOAT64, TileShape

#: Vectors of 16, 32 and 64 bytes: LLVM supports any width. Fused multiply-adds are slow without an instruction, so they
#: are tested only with this CPU's vectors.
FORCED = [TileShape(f"float{8 * size}", width // size, False, 4, 2) for size in (4, 8) for width in (16, 32, 64)]
TILINGS = [*FORCED, FLOAT32, FLOAT64]


def name_of(tile: TileShape) -> str:
    return f"{tile.real}x{tile.lanes}{'-fused' if tile.fused else ''}"


#: The kernels for the forced ones are not used elsewhere.
each_tile_shape = pytest.mark.parametrize(
    "tile",
    [*(pytest.param(tile, marks=pytest.mark.slow) for tile in FORCED), FLOAT32, FLOAT64],
    ids=name_of,
)


class Guarded:
    """An array surrounded by guard elements.

    Parameters
    ----------
    values : (size,) array
    offset : int
        Offset in elements, because vectors need not be aligned.

    Attributes
    ----------
    array : (size,) array
    address : int
    """

    GUARDS, VALUE = 40, 77.0

    def __init__(self, values: np.ndarray, offset: int = 0) -> None:
        self._memory = np.full(values.size + offset + 2 * self.GUARDS, self.VALUE, values.dtype)
        self._begin = self.GUARDS + offset
        self.array = self._memory[self._begin : self._begin + values.size]
        self.array[:] = values
        self.address = self.array.ctypes.data

    def check(self) -> None:
        """Check that only the array was written."""
        end = self._begin + self.array.size
        outside = np.concatenate([self._memory[: self._begin], self._memory[end:]])
        assert (outside == self.VALUE).all(), "wrote outside"


def bits(array: np.ndarray) -> np.ndarray:
    """An array's memory as integers, so that NaN equals itself."""
    return np.ascontiguousarray(array).view(f"i{array.itemsize}")
