"""The IDX format, in which MNIST and similar data sets are published.

A file consists of two zero bytes, one byte for the element type, one byte for the number of dimensions, each dimension
as a big-endian 32-bit count, and the elements in C order, big-endian. Source: Y. LeCun, C. Cortes, C. Burges, "The
MNIST database of handwritten digits", section "File formats".
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
"""Largest array that is read or written, in bytes; a header that declares more is considered damaged."""

MAX_GZIPPED_BYTES = 2**30
"""Largest array that is read from a gzip stream, in bytes; a malicious file of 1 MB could expand to that size."""

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
# Deflate needs at least 2 bits for 258 bytes of output, so a gzip file expands to at most 1032 times its size.
_MAX_DEFLATE_RATIO = 1032


def read_idx(path: str | os.PathLike[str], expect_dimensions: int | None = None) -> NDArray[Any]:
    """Read an IDX file, plain or gzipped (detected by content, not by name).

    It allocates no more memory than the header declares, and none if the file is too small for that.

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
        The file is missing, unreadable, not IDX, truncated, corrupt, longer than its header declares, has a
        dimension of 0, is larger than `MAX_BYTES` (`MAX_GZIPPED_BYTES` if it is gzipped), or has another number of
        dimensions than expected.
    """
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            # Opening a pipe would block until another process writes to it.
            raise DataError(f"{path}: cannot be opened: it is a pipe, not a file")
        raw = open(path, "rb")  # noqa: SIM115  (errors of opening and of reading have different messages)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    with raw, decompressed(raw, path) as stream:
        dtype, shape = _read_header(stream, path)
        if expect_dimensions is not None and len(shape) != expect_dimensions:
            raise DataError(f"{path}: holds an array of shape {shape}, expected {expect_dimensions} dimension(s)")
        declared = math.prod(shape) * dtype.itemsize
        most = os.fstat(raw.fileno()).st_size * (1 if stream is raw else _MAX_DEFLATE_RATIO)
        limit = MAX_BYTES if stream is raw else MAX_GZIPPED_BYTES
        if declared > limit:
            hint = "; if that is correct, unpack the file with gunzip first" if limit < declared <= MAX_BYTES else ""
            raise DataError(f"{path}: header declares {declared} bytes {shape}, more than the limit of {limit}{hint}")
        if declared > most:
            raise DataError(
                f"{path}: truncated: header declares {declared} bytes {shape}, the file can hold at most {most}"
            )
        try:
            data = np.empty(declared, np.uint8)
        except MemoryError as error:
            raise DataError(f"{path}: not enough memory for its {declared} bytes {shape}") from error
        received = _fill(stream, data.data)
        if received < declared:
            raise DataError(f"{path}: truncated: header declares {declared} bytes of data {shape}, found {received}")
        # Reading to the end also makes gzip check its checksum.
        if stream.read(1):
            raise DataError(f"{path}: trailing data after the {declared} bytes {shape} that the header declares")
    array = data.view(dtype).reshape(shape)
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an array as an IDX file, gzipped if the name ends in ``.gz``.

    The file is written completely or not at all. The same array gives the same bytes.

    Parameters
    ----------
    path : str or path-like
        The file to write; its folder is created if it is missing.
    array : ndarray
        1 to `MAX_DIMENSIONS` dimensions, none of them 0, of type uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    InvalidInputError
        IDX cannot hold such an array.
    OSError
        The file cannot be written; an existing file is unchanged.
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
            # An empty name and no time stamp, so that the bytes depend only on the array.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
                stream.write(header)
                stream.write(data)
        else:
            raw.write(header)
            raw.write(data)


@contextmanager
def decompressed(raw: io.BufferedIOBase, name: str | os.PathLike[str]) -> Iterator[io.BufferedIOBase]:
    """Decompress the stream if it is gzipped, and convert errors of reading it to DataError.

    Parameters
    ----------
    raw : binary file object
        Open for reading, at its start.
    name : str or path-like
        The file's name in error messages.

    Yields
    ------
    binary file object
        `raw` itself, or the gzip stream in it.

    Raises
    ------
    DataError
        The gzip stream is corrupt or truncated, or reading failed.
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
        raise DataError(f"{name}: truncated: the gzip stream is incomplete") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: corrupt gzip data: {error}") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from error


def _read_header(stream: io.BufferedIOBase, path: str | os.PathLike[str]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if magic[:2] != b"\x00\x00"[: len(magic)]:
        raise DataError(f"{path}: not an IDX file: starts with {magic!r}, expected two zero bytes")
    if len(magic) < 4:
        raise DataError(f"{path}: truncated: {len(magic)} bytes, too few for an IDX header")
    code, dimensions = magic[2], magic[3]
    if code not in _ELEMENT_TYPES:
        known = ", ".join(f"0x{known:02X}" for known in _ELEMENT_TYPES)
        raise DataError(f"{path}: unknown IDX element type 0x{code:02X}, expected one of {known}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise DataError(f"{path}: header declares {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}")
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path}: truncated: the header ends within its {dimensions} dimension(s)")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if 0 in shape:
        raise DataError(f"{path}: header declares an empty array of shape {shape}")
    return _ELEMENT_TYPES[code], shape


def _fill(stream: io.BufferedIOBase, view: memoryview) -> int:
    """Fill `view` from the stream and return the bytes read; in chunks, because gzip copies every result."""
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled : filled + _CHUNK])
        if not count:
            break
        filled += count
    return filled
