"""The IDX format: the files MNIST and its kin are published in.

A file is two zero bytes, one byte for the element type, one for the number of dimensions, each dimension
as a big-endian 32-bit count, then the elements in C order, big-endian. Source: Y. LeCun, C. Cortes,
C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import gzip
import io
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.errors import DataError, InvalidInputError
from nnbackend.support.files import atomic_write

__all__ = ["MAX_BYTES", "MAX_DIMENSIONS", "MAX_GZIPPED_BYTES", "decompressed", "read_idx", "write_idx"]

MAX_BYTES = 8 * 2**30
"""Largest array that is read or written, in bytes; a header that promises more is taken for damage."""

MAX_GZIPPED_BYTES = 2**30
"""Largest array that is read from a gzip stream, in bytes: a stranger's file of 1 MB may hold as much."""

MAX_DIMENSIONS = 32
"""Most dimensions that are read or written."""

_ELEMENT_TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 2**20
# Deflate spends at least 2 bits on 258 bytes of output, so a gzip file holds at most 1032 times its size.
_MAX_DEFLATE_RATIO = 1032


def read_idx(path: str | os.PathLike[str], expect_dimensions: int | None = None) -> NDArray[Any]:
    """Read one IDX file, plain or gzipped (told apart by content, not by name).

    No more memory is taken than the header promises, and nothing is taken if the file is too small to keep
    that promise.

    Parameters
    ----------
    path : str or path-like
        The file.
    expect_dimensions : int, optional
        Number of dimensions the array must have: 3 for images, 1 for labels.

    Returns
    -------
    ndarray
        In C order and native byte order, of type uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    DataError
        The file is missing, unreadable, not IDX, truncated, corrupt, longer than its header promises, has a
        dimension of 0, is larger than `MAX_BYTES` (`MAX_GZIPPED_BYTES` if it is gzipped), or has another number of
        dimensions than expected.
    """
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            # Opening one waits for somebody who writes.
            raise DataError(f"{path}: cannot be opened: it is a pipe, not a file")
        raw = open(path, "rb")  # noqa: SIM115  (errors of opening and of reading are told apart)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    with raw, decompressed(raw, path) as stream:
        dtype, shape = _read_header(stream, path)
        if expect_dimensions is not None and len(shape) != expect_dimensions:
            raise DataError(f"{path}: holds an array of shape {shape}, expected {expect_dimensions} dimension(s)")
        promised = math.prod(shape) * dtype.itemsize
        most = os.fstat(raw.fileno()).st_size * (1 if stream is raw else _MAX_DEFLATE_RATIO)
        limit = MAX_BYTES if stream is raw else MAX_GZIPPED_BYTES
        if promised > limit:
            hint = "; if it is no damage, unpack the file with gunzip first" if limit < promised <= MAX_BYTES else ""
            raise DataError(f"{path}: header promises {promised} bytes {shape}, more than the limit of {limit}{hint}")
        if promised > most:
            raise DataError(
                f"{path}: truncated: header promises {promised} bytes {shape}, the file can hold at most {most}"
            )
        try:
            data = np.empty(promised, np.uint8)
        except MemoryError as error:
            raise DataError(f"{path}: there is no memory for its {promised} bytes {shape}") from error
        received = _fill(stream, data.data)
        if received < promised:
            raise DataError(f"{path}: truncated: header promises {promised} bytes of data {shape}, found {received}")
        # Reading to the end is also what makes gzip compare its checksum.
        if stream.read(1):
            raise DataError(f"{path}: trailing data after the {promised} bytes {shape} that the header promises")
    array = data.view(dtype).reshape(shape)
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an array as an IDX file; gzipped if the name ends in ``.gz``.

    The file appears whole or not at all. The same array gives the same bytes.

    Parameters
    ----------
    path : str or path-like
        The file to write; its folder is made if it is missing.
    array : ndarray
        1 to `MAX_DIMENSIONS` dimensions, none of them 0, of type uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    InvalidInputError
        IDX cannot hold such an array.
    OSError
        The file cannot be written; what was there before is intact.
    """
    array = np.asarray(array)
    codes = {dtype.newbyteorder("="): code for code, dtype in _ELEMENT_TYPES.items()}
    code = codes.get(array.dtype.newbyteorder("="))
    if code is None:
        names = ", ".join(dtype.name for dtype in codes)
        raise InvalidInputError(f"IDX cannot hold elements of type {array.dtype}: convert to one of {names}")
    if not 1 <= array.ndim <= MAX_DIMENSIONS or array.size == 0 or array.nbytes > MAX_BYTES:
        raise InvalidInputError(
            f"IDX cannot hold an array of shape {array.shape}: it needs 1 to {MAX_DIMENSIONS} dimensions, "
            f"none of them 0, and at most {MAX_BYTES} bytes"
        )
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    data = np.ascontiguousarray(array, _ELEMENT_TYPES[code]).reshape(-1).view(np.uint8).data
    with atomic_write(path) as raw:
        if os.fspath(path).endswith(".gz"):
            # An empty name and no time stamp, so that the bytes depend on the array alone.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
                stream.write(header)
                stream.write(data)
        else:
            raw.write(header)
            raw.write(data)


@contextmanager
def decompressed(raw: io.BufferedIOBase, name: str | os.PathLike[str]) -> Iterator[io.BufferedIOBase]:
    """Look through gzip, if the stream is gzipped, and turn what goes wrong in reading it into DataError.

    Parameters
    ----------
    raw : binary file object
        Open for reading, at its start.
    name : str or path-like
        What the messages call it.

    Yields
    ------
    binary file object
        `raw` itself, or the gzip stream in it.

    Raises
    ------
    DataError
        The gzip stream is corrupt or cut off, or reading failed.
    """
    try:
        gzipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        raw.seek(0)
        if gzipped:
            with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                yield stream
        else:
            yield raw
    except EOFError as error:
        raise DataError(f"{name}: truncated: the gzip stream is cut off") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: corrupt gzip data: {error}") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from error


def _read_header(stream: io.BufferedIOBase, path: str | os.PathLike[str]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if magic[:2] != b"\x00\x00"[: len(magic)]:
        raise DataError(f"{path}: not an IDX file: begins with {magic!r}, expected two zero bytes")
    if len(magic) < 4:
        raise DataError(f"{path}: truncated: {len(magic)} bytes, too few for an IDX header")
    code, dimensions = magic[2], magic[3]
    if code not in _ELEMENT_TYPES:
        known = ", ".join(f"0x{known:02X}" for known in _ELEMENT_TYPES)
        raise DataError(f"{path}: unknown IDX element type 0x{code:02X}, expected one of {known}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise DataError(f"{path}: header promises {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}")
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path}: truncated: the header ends within its {dimensions} dimension(s)")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if 0 in shape:
        raise DataError(f"{path}: header promises an empty array of shape {shape}")
    return _ELEMENT_TYPES[code], shape


def _fill(stream: io.BufferedIOBase, view: memoryview) -> int:
    """Fill `view` from the stream, in chunks because gzip builds each answer aside; returns the bytes read."""
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled : filled + _CHUNK])
        if not count:
            break
        filled += count
    return filled
