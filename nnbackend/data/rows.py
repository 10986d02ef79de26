"""Checked rows to train on, in memory or in a file that may be larger than memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import check_features, check_shape, check_values
from nnbackend.data.stored import check_claim, is_stored, reading

__all__ = ["MemoryRows", "Rows", "StoredRows", "as_rows"]

#: Elements per read when a whole file is read.
_LOOK = 1 << 22


class Rows(ABC):
    """Rows of features, uint8 or of the network's dtype.

    Attributes
    ----------
    count, features : int
    dtype : numpy dtype
        Of the rows on the device.
    """

    count: int
    features: int
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Bytes of the rows on a device."""
        return self.count * self.features * self.dtype.itemsize

    @property
    @abstractmethod
    def stored(self) -> bool:
        """Whether the rows are in a file, not in memory."""

    @abstractmethod
    def array(self) -> HostArray:
        """All rows, (count, features), contiguous."""

    @abstractmethod
    def part(self, start: int, stop: int) -> HostArray:
        """The rows from `start` up to but not including `stop`, or to the end."""

    @abstractmethod
    def read(self, order: npt.NDArray[np.int64], out: HostArray) -> None:
        """Copy the rows with these numbers to `out`, of shape (len(order), features)."""


class MemoryRows(Rows):
    """Rows of a checked, contiguous array."""

    stored = False

    def __init__(self, array: HostArray) -> None:
        self._array = array
        self.count, self.features = array.shape
        self.dtype = array.dtype

    def array(self) -> HostArray:
        return self._array

    def part(self, start: int, stop: int) -> HostArray:
        return self._array[start:stop]

    def read(self, order: npt.NDArray[np.int64], out: HostArray) -> None:
        # With "clip" NumPy writes directly to `out`; the numbers are known to be in range.
        np.take(self._array, order, axis=0, out=out, mode="clip")


class StoredRows(Rows):
    """Rows of an array in a file, read when they are needed.

    Parameters
    ----------
    source : array_like
        Has a shape and a dtype, and returns rows for slices and for increasing row numbers.
    features : int
    dtype : numpy dtype
        uint8, or the dtype to convert to.
    """

    stored = True

    def __init__(self, source: Any, features: int, dtype: np.dtype[Any]) -> None:
        self._source = source
        self.count, self.features = len(source), features
        self.dtype = dtype

    def array(self) -> HostArray:
        whole = np.empty((self.count, self.features), self.dtype)
        for start, values in self._pieces():
            whole[start : start + len(values)] = values
        return whole

    def part(self, start: int, stop: int) -> HostArray:
        return self._read(slice(start, stop)).astype(self.dtype, copy=False)

    def read(self, order: npt.NDArray[np.int64], out: HostArray) -> None:
        if (np.diff(order) == 1).all():
            out[...] = self._read(slice(int(order[0]), int(order[-1]) + 1))
        elif isinstance(self._source, np.ndarray):
            out[...] = self._read(order)
        else:
            # HDF5 requires increasing numbers without repetition.
            numbers, places = np.unique(order, return_inverse=True)
            out[...] = self._read(numbers)[places]

    def check(self) -> None:
        """Check every value, reading piece by piece.

        Raises
        ------
        InvalidInputError
            NaN, infinity, or a value beyond the range of the dtype.
        DataError
            The file cannot be read.
        """
        for start, values in self._pieces():
            check_values(values, self.dtype, first_row=start)

    def _pieces(self) -> Iterator[tuple[int, HostArray]]:
        step = max(1, _LOOK // self.features)
        for start in range(0, self.count, step):
            yield start, self._read(slice(start, start + step))

    def _read(self, which: Any) -> HostArray:
        with reading("x", self._source):
            rows = self._source[which]
        return np.asarray(rows).reshape(len(rows), self.features)


def as_rows(x: Any, input_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:
    """The caller's `x`, checked. A file is read once for the check, and not loaded.

    Raises
    ------
    InvalidInputError
        No rows, another number of features than the network's, NaN or infinity.
    DataError
        The file cannot be read, or holds almost nothing of a large array.
    """
    if isinstance(x, Rows):
        return x
    if not is_stored(x):
        return MemoryRows(check_features(x, input_shape, dtype))
    with reading("x", x):
        check_shape(x.shape, x.dtype, input_shape)
        check_claim("x", x)
    rows = StoredRows(x, math.prod(input_shape), np.dtype(np.uint8) if x.dtype == np.uint8 else dtype)
    if x.dtype.kind == "f":
        rows.check()
    return rows
