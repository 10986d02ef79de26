"""Checked rows to train on, in memory or in a file that may be larger than memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import as_host_array, check_features, check_scaled, check_shape, check_values, is_sparse
from nnbackend.data.scale import Images, Inputs, InputScale, scaled_by
from nnbackend.data.stored import check_claim, is_stored, reading
from nnbackend.errors import InvalidInputError

__all__ = ["MemoryRows", "Rows", "SparseRows", "StoredRows", "as_rows", "check_places"]

#: Elements per read when a whole file is read.
_LOOK = 1 << 22


class Rows(ABC):
    """Rows of features, uint8 or of the network's dtype.

    Attributes
    ----------
    count, features : int
    dtype : numpy dtype
        Of the rows on the device.
    received : numpy dtype
        Of what the caller gave.
    images : bool
        Whether they are known to be images, whatever the shape of a sample.
    scale : float
        Factor the gather applies, once `choose_scale` was called.
    """

    count: int
    features: int
    dtype: np.dtype[Any]
    received: np.dtype[Any]
    images: bool = False
    scale: float = math.nan
    #: Whether all rows may be in memory at the same time.
    dense = True

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Bytes of the rows on a device."""
        return self.count * self.features * self.dtype.itemsize

    def extent(self) -> tuple[float, float] | None:
        """The smallest and the largest value; None if that needs reading a file."""
        return None

    def choose_scale(self, choice: InputScale, dtype: npt.DTypeLike) -> None:
        """Set the factor on these rows, for a network of that dtype.

        Raises
        ------
        InvalidInputError
            The products overflow.
        """
        self.scale = choice.of(self.received, self.images)
        if abs(self.scale) > 1 and (extent := self.extent()) is not None:
            check_scaled(extent, self.scale, dtype)

    def describe(self, choice: InputScale, targets: str) -> Inputs:
        """What a network is trained with, if these are its rows."""
        pixels = choice.is_pixels(self.received, self.images)
        what = "images" if pixels else f"inputs with {self.features} feature{'' if self.features == 1 else 's'}"
        kind = f"{self.received.name} {'' if self.dense else 'sparse '}{what}"
        low, high = self.extent() or (None, None)
        return Inputs(f"{kind}, {scaled_by(self.scale)}; {targets}", self.received.name, low, high)

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

    def __init__(self, array: HostArray, received: np.dtype[Any] | None = None, images: bool = False) -> None:
        self._array = array
        self.count, self.features = array.shape
        self.dtype = array.dtype
        self.received, self.images = array.dtype if received is None else received, images

    def extent(self) -> tuple[float, float]:
        return float(self._array.min()), float(self._array.max())

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
        self.received = np.dtype(getattr(source, "dtype", dtype))

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

    def choose_scale(self, choice: InputScale, dtype: npt.DTypeLike) -> None:
        super().choose_scale(choice, dtype)
        if abs(self.scale) > 1:
            for _, values in self._pieces():
                check_scaled((float(values.min()), float(values.max())), self.scale, dtype)

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


class SparseRows(Rows):
    """Rows of a sparse matrix; only those of a portion are dense at a time.

    Parameters
    ----------
    matrix : SciPy sparse matrix or array, (n, features)
    dtype : numpy dtype
        The network's.
    """

    stored = False
    dense = False

    def __init__(self, matrix: Any, dtype: np.dtype[Any]) -> None:
        check_places(matrix)
        self._matrix = matrix.tocsr()
        if not self._matrix.has_canonical_format:
            # Entries of the same place are added, so their sums are checked. The caller's matrix is not changed.
            self._matrix = self._matrix.copy()
            self._matrix.sum_duplicates()
        self.count, self.features = matrix.shape
        self.received = np.dtype(matrix.dtype)
        self.dtype = self.received if self.received == np.uint8 else dtype
        values = self._matrix.data
        if not np.isfinite(values).all():
            bad = ~np.isfinite(values)
            place = int(np.argmax(bad))
            row = int(np.searchsorted(self._matrix.indptr, place, side="right")) - 1
            raise InvalidInputError(
                f"x holds {int(bad.sum())} NaN or infinite values, the first in row {row}, feature "
                f"{int(self._matrix.indices[place])}; remove or replace them"
            )
        check_values(values.reshape(1, -1) if len(values) else np.zeros((1, 1)), dtype)

    def extent(self) -> tuple[float, float]:
        values = self._matrix.data
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        return (low, high) if len(values) == self.count * self.features else (min(low, 0.0), max(high, 0.0))

    def array(self) -> HostArray:
        return self.part(0, self.count)

    def part(self, start: int, stop: int) -> HostArray:
        rows: HostArray = self._matrix[start:stop].toarray().astype(self.dtype, copy=False)
        return rows

    def read(self, order: npt.NDArray[np.int64], out: HostArray) -> None:
        out[...] = self._matrix[order].toarray()


def check_places(matrix: Any) -> None:
    """Reject a sparse matrix whose arrays were changed so that SciPy would read and write outside of them."""
    rows, columns = matrix.shape
    if matrix.format == "coo":
        places = [(matrix.row, rows), (matrix.col, columns)]
    elif matrix.format in ("csr", "csc", "bsr"):
        block = matrix.blocksize if matrix.format == "bsr" else (1, 1)
        end = rows if matrix.format == "csc" else columns // block[1]
        ends = matrix.indptr
        stored = min(len(matrix.indices), len(matrix.data))
        major = columns if matrix.format == "csc" else rows // block[0]
        if len(ends) != major + 1 or ends[0] != 0 or ends[-1] > stored or (np.diff(ends) < 0).any():
            raise InvalidInputError("x is a damaged sparse matrix: its indptr does not fit its other arrays")
        places = [(matrix.indices[: ends[-1]], end)]
    else:
        return
    for found, size in places:
        if len(found) and (found.min() < 0 or found.max() >= size):
            wrong = found.min() if found.min() < 0 else found.max()
            raise InvalidInputError(
                f"x is a damaged sparse matrix of shape {matrix.shape}: it has a value at index {wrong} of {size}"
            )


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
    if is_sparse(x):
        if len(x.shape) == 1:
            raise InvalidInputError(f"x is a sparse array of shape {x.shape}; give one of two dimensions")
        check_shape(x.shape, np.dtype(x.dtype), input_shape)
        return SparseRows(x, dtype)
    if not is_stored(x):
        return _in_memory(x, input_shape, dtype)
    with reading("x", x):
        check_shape(x.shape, x.dtype, input_shape)
        check_claim("x", x)
    rows = StoredRows(x, math.prod(input_shape), np.dtype(np.uint8) if x.dtype == np.uint8 else dtype)
    rows.images = isinstance(x, Images)
    if x.dtype.kind == "f":
        rows.check()
    return rows


def _in_memory(x: Any, input_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:
    images = isinstance(x, Images)
    names = None
    if not isinstance(x, np.ndarray | list) and hasattr(x, "__len__"):
        from nnbackend.data.frames import column_names

        names = column_names(x)
    array = as_host_array("x", x)
    rows = check_features(array, input_shape, dtype, names)
    return MemoryRows(rows, array.dtype, images)
