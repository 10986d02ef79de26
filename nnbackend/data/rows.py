"""The rows a network is trained on, checked, wherever they lie: in memory, or in a file that is larger than it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import HostArray
from nnbackend.data.inputs import check_features, check_shape, check_values
from nnbackend.errors import DataError, InvalidInputError

__all__ = ["MemoryRows", "Rows", "StoredRows", "as_rows"]

#: Libraries whose arrays lie in files and are read by slicing them.
_STORES = ("h5py", "zarr")

#: Elements that are read from a file at a time where all of it is read.
_LOOK = 1 << 22


#: Bytes that an array in a file may be said to have, whatever the file holds of them; beyond, at most so many times
#: what it holds. Deflate, the best packer that HDF5 always has, spends a byte on 1032.
_BELIEVED = 1 << 30
_MOST_RATIO = 1032


class Rows(ABC):
    """Rows of features, uint8 or of the network's dtype.

    Attributes
    ----------
    count, features : int
    dtype : numpy dtype
        As the device is to hold them.
    """

    count: int
    features: int
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Bytes they take on a device."""
        return self.count * self.features * self.dtype.itemsize

    @property
    @abstractmethod
    def stored(self) -> bool:
        """Whether they lie in a file, and not in memory."""

    @abstractmethod
    def array(self) -> HostArray:
        """All of them, (count, features), contiguous."""

    @abstractmethod
    def part(self, start: int, stop: int) -> HostArray:
        """Those from `start` to before `stop`, or the last."""

    @abstractmethod
    def read(self, order: npt.NDArray[np.int64], out: HostArray) -> None:
        """Bring the rows with these numbers to `out`, of shape (len(order), features)."""


class MemoryRows(Rows):
    """Rows of a contiguous array that was checked."""

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
        # "clip" because the numbers are known to be right, and NumPy then writes straight to `out`.
        np.take(self._array, order, axis=0, out=out, mode="clip")


class StoredRows(Rows):
    """Rows of an array in a file, read where and when they are needed.

    Parameters
    ----------
    source : array_like
        Has a shape and a dtype, and gives rows when sliced, or asked for rising row numbers.
    features : int
    dtype : numpy dtype
        uint8, or what other numbers are converted to.
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
            # HDF5 asks for rising numbers without repetition.
            numbers, places = np.unique(order, return_inverse=True)
            out[...] = self._read(numbers)[places]

    def check(self) -> None:
        """Look at every value, a piece at a time.

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
        with _reading():
            rows = self._source[which]
        return np.asarray(rows).reshape(len(rows), self.features)


@contextmanager
def _reading() -> Iterator[None]:
    """HDF5 finds damage where it comes to it, and h5py says so in a RuntimeError more often than in an OSError."""
    try:
        yield
    except (RuntimeError, KeyError) as error:
        raise DataError(f"the file of x cannot be read; it may be damaged: {error}") from error


def as_rows(x: Any, input_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:
    """What the caller gave as `x`, checked; a file is read once for that, and stays where it is.

    Raises
    ------
    InvalidInputError
        No rows, another number of features than the network's, NaN or infinity; or an array in a file that is said to
        be large and holds next to nothing.
    DataError
        Its file cannot be read.
    """
    if isinstance(x, Rows):
        return x
    if not _is_stored(x):
        return MemoryRows(check_features(x, input_shape, dtype))
    with _reading():
        check_shape(x.shape, x.dtype, input_shape)
        _check_claim(x)
    rows = StoredRows(x, math.prod(input_shape), np.dtype(np.uint8) if x.dtype == np.uint8 else dtype)
    if x.dtype.kind == "f":
        rows.check()
    return rows


def _check_claim(x: Any) -> None:
    """Refuse an array of a file that says that it is large and holds next to nothing: it would be read for ages.

    HDF5 makes up what is not there. Where it does not say how much is, as for arrays made of those in other files, it
    is believed.
    """
    claimed = math.prod(x.shape) * x.dtype.itemsize
    if claimed <= _BELIEVED or getattr(x, "is_virtual", True) or x.external:
        return
    held = x.id.get_storage_size()
    if claimed > _MOST_RATIO * held:
        raise InvalidInputError(
            f"x is said to have {claimed:,} bytes, of shape {x.shape}, but its file holds {held:,} of them; "
            "write its rows first"
        )


def _is_stored(x: Any) -> bool:
    if isinstance(x, np.ndarray):
        # What a slice of a memory-mapped array is a view of.
        base: Any = x
        while isinstance(base, np.ndarray):
            if isinstance(base, np.memmap):
                return True
            base = base.base
        return False
    return type(x).__module__.partition(".")[0] in _STORES
