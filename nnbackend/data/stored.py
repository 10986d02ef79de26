"""Arrays in files: recognised, and read within the limits that `SECURITY.md` states."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnbackend.errors import DataError, NNBackendError

__all__ = ["check_claim", "file_of", "is_stored", "reading"]

#: Libraries whose arrays are in files and are read by slicing.
_STORES = ("h5py", "zarr")

#: Claimed sizes up to this many bytes are believed. Larger ones may be at most `_MOST_RATIO` times the stored bytes:
#: Deflate, the best compression that HDF5 always has, needs a byte for 1032.
_BELIEVED = 1 << 30
_MOST_RATIO = 1032


def is_stored(value: Any) -> bool:
    """Whether an array is in a file, not in memory."""
    if isinstance(value, np.ndarray):
        # A slice of a memory-mapped array is a view of it.
        base: Any = value
        while isinstance(base, np.ndarray):
            if isinstance(base, np.memmap):
                return True
            base = base.base
        return False
    return type(value).__module__.partition(".")[0] in _STORES


def file_of(what: str, value: Any) -> str:
    """The name of an array in a file, for messages: with the file, if the library knows it."""
    try:
        return f"{what} in {value.file.filename}"
    except Exception:
        # Not HDF5, or closed.
        return f"the file of {what}"


@contextmanager
def reading(what: str, value: Any) -> Iterator[None]:
    """Turn the errors of damaged files into DataError; libraries raise almost any type of error.

    Parameters
    ----------
    what : str
        Its name: "x".
    value : array in a file
    """
    try:
        yield
    except NNBackendError:
        raise
    except MemoryError as error:
        raise DataError(f"{file_of(what, value)} does not fit into memory: {error}") from error
    except Exception as error:
        raise DataError(f"{file_of(what, value)} cannot be read; it may be damaged: {error}") from error


def check_claim(what: str, value: Any) -> None:
    """Reject a large array if its file contains almost none of it, because reading it would take very long.

    HDF5 fills in missing values, and reads whole chunks. If it does not know the stored size, as for arrays that refer
    to other files, the claim is believed.

    Parameters
    ----------
    what : str
        Its name: "x".
    value : array in a file

    Raises
    ------
    DataError
    """
    chunk = math.prod(getattr(value, "chunks", None) or (0,)) * value.dtype.itemsize
    claimed = max(math.prod(value.shape) * value.dtype.itemsize, chunk)
    if claimed <= _BELIEVED or getattr(value, "is_virtual", True) or value.external:
        return
    held = value.id.get_storage_size()
    if claimed > _MOST_RATIO * held:
        raise DataError(
            f"{file_of(what, value)} is said to have {claimed:,} bytes, of shape {value.shape}, but the file holds "
            f"{held:,} of them, and compression saves at most a factor of {_MOST_RATIO:,}; write its rows first"
        )
