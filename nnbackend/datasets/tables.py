"""Read rows from Parquet and HDF5 files (extra ``tables``)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.stored import check_claim
from nnbackend.errors import DataError, NNBackendError, UnknownNameError
from nnbackend.support.extras import install_command
from nnbackend.support.files import check_regular
from nnbackend.support.memory import machine_memory, size_text

if TYPE_CHECKING:
    import h5py
    from pyarrow.parquet import ParquetFile

__all__ = ["arrow_table", "open_hdf5", "read_parquet", "stream_parquet"]

#: Rows of a Parquet file that are decoded at once.
_BATCH_ROWS = 65_536


def read_parquet(
    path: str | os.PathLike[str], target: str, features: Sequence[str] | None = None
) -> tuple[HostArray, HostArray]:
    """Read all rows of a Parquet file into memory.

    Parameters
    ----------
    path : str or path-like
    target : str
        The column of labels or of values to predict.
    features : sequence of str, optional
        The columns of features, in this order. Default: all other columns.

    Returns
    -------
    x : (n, features) float32, or float64 if a column has 64-bit numbers
    y : (n,) array

    Raises
    ------
    DataError
        The file is missing or damaged, or a column is not numeric or has missing values.
    UnknownNameError
        There is no such column.
    ImportError
        The package pyarrow is missing.
    """
    with _open_parquet(path) as file, _reading_parquet(path):
        names = _columns(file, target, features)
        _check_memory(path, file.metadata.num_rows, len(names) + 1)
        return _arrays(path, file.read([*names, target]), names, target)


def arrow_table(path: str | os.PathLike[str]) -> Any:
    """Read all columns of a Parquet file, of whatever type, as a table of PyArrow.

    Raises
    ------
    DataError
        The file is missing or damaged, or its table cannot fit into memory.
    ImportError
        The package pyarrow is missing.
    """
    with _open_parquet(path) as file, _reading_parquet(path):
        _check_memory(path, file.metadata.num_rows, file.metadata.num_columns)
        return file.read()


def stream_parquet(
    path: str | os.PathLike[str],
    target: str,
    features: Sequence[str] | None = None,
    batch_rows: int = _BATCH_ROWS,
) -> BatchStream:
    """Stream the rows of a Parquet file of any size to `Network.fit`, without loading the whole file.

    ``fit(stream, shuffle=True)`` shuffles only the rows that are in memory together. If the file is sorted, for example
    by class, write it in random order first.

    Parameters
    ----------
    path, target, features
        As for `read_parquet`.
    batch_rows : int
        Rows that are read at once.

    Returns
    -------
    BatchStream

    Raises
    ------
    DataError, UnknownNameError, ImportError
        As for `read_parquet`; errors in rows that are read later are raised during training.
    """
    with _open_parquet(path) as file, _reading_parquet(path):
        names = _columns(file, target, features)
        rows = file.metadata.num_rows
    if rows == 0:
        raise DataError(f"{os.fspath(path)} has no rows")

    def pieces(epoch: int) -> Iterator[tuple[HostArray, HostArray]]:
        with _open_parquet(path) as file:
            batches = file.iter_batches(batch_rows, columns=[*names, target])
            while True:
                with _reading_parquet(path):
                    batch = next(batches, None)
                    piece = None if batch is None else _arrays(path, batch, names, target)
                if piece is None:
                    return
                yield piece

    return BatchStream(pieces, rows)


def open_hdf5(path: str | os.PathLike[str], x: str = "x", y: str = "y") -> tuple[h5py.Dataset, HostArray]:
    """Open the rows of an HDF5 file of any size, and read their targets into memory.

    The rows stay in the file, which remains open while they are in use. `Network.fit` streams them if they are large,
    and `Network.predict` reads them batch by batch.

    Parameters
    ----------
    path : str or path-like
    x, y : str
        Names of the HDF5 data sets with the rows and the targets, such as "x" or "group/x".

    Returns
    -------
    rows : h5py.Dataset
    targets : ndarray

    Raises
    ------
    DataError
        The file is missing, damaged or not HDF5, the rows and the targets differ in number, or the file holds almost
        nothing of a large array.
    UnknownNameError
        The file has no such data set.
    ImportError
        The package h5py is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"HDF5 files need the package h5py: {install_command('tables')}") from error
    try:
        # Opening a pipe would wait for someone to write to it.
        check_regular(path)
        file = h5py.File(path, "r")
    except Exception as error:
        # h5py raises many types of errors if a file is damaged.
        raise DataError(f"{os.fspath(path)} cannot be opened as an HDF5 file: {error}") from error
    try:
        return _rows_and_targets(path, file, x, y)
    except NNBackendError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise DataError(f"{os.fspath(path)} cannot be read; it may be damaged: {error}") from error


def _rows_and_targets(path: str | os.PathLike[str], file: h5py.File, x: str, y: str) -> tuple[h5py.Dataset, HostArray]:
    import h5py

    found: list[str] = []
    file.visititems(lambda key, item: found.append(key) if isinstance(item, h5py.Dataset) else None)
    for name in (x, y):
        if name not in found:
            raise UnknownNameError(f"data set in {os.fspath(path)}", name, found)
    rows, targets = file[x], file[y]
    for name, array in ((x, rows), (y, targets)):
        if not array.shape:
            raise DataError(f"{name!r} in {os.fspath(path)} is a single value or empty, not one entry for each row")
        check_claim(repr(name), array)
    if len(rows) != len(targets):
        # Before they are read.
        raise DataError(f"{os.fspath(path)} has {len(rows):,} rows in {x!r}, but {len(targets):,} targets in {y!r}")
    return rows, targets[...]


@contextmanager
def _reading_parquet(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the errors of damaged files into DataError; pyarrow raises many types of errors."""
    try:
        yield
    except NNBackendError:
        raise
    except Exception as error:
        raise DataError(f"{os.fspath(path)} cannot be read; it may be damaged: {error}") from error


def _check_memory(path: str | os.PathLike[str], rows: int, columns: int) -> None:
    """Reject a table that does not fit into memory, whatever its file claims."""
    needed, memory = rows * columns * np.dtype(np.float32).itemsize, machine_memory()
    if needed > memory:
        raise DataError(
            f"{os.fspath(path)} is said to have {rows:,} rows of {columns:,} columns, which take at least "
            f"{size_text(needed)}, and this machine has {size_text(memory)}; use stream_parquet"
        )


def _open_parquet(path: str | os.PathLike[str]) -> ParquetFile:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(f"Parquet files need the package pyarrow: {install_command('tables')}") from error
    try:
        check_regular(path)
        return ParquetFile(path)
    except Exception as error:
        raise DataError(f"{os.fspath(path)} cannot be opened as a Parquet file: {error}") from error


def _columns(file: ParquetFile, target: str, features: Sequence[str] | None) -> list[str]:
    columns = file.schema_arrow.names
    names = [name for name in columns if name != target] if features is None else list(features)
    for name in (*names, target):
        if name not in columns:
            raise UnknownNameError("column", name, columns)
    if not names:
        raise DataError(f"there is no column besides the target {target!r}")
    return names


def _arrays(path: str | os.PathLike[str], table: Any, names: Sequence[str], target: str) -> tuple[HostArray, HostArray]:
    """The feature columns of a table or a batch as rows, and its targets."""
    columns = [_column(path, table, name) for name in names]
    wide = any(column.dtype.kind in "iuf" and column.dtype.itemsize == 8 for column in columns)
    return np.stack(columns, axis=1, dtype=np.float64 if wide else np.float32), _column(path, table, target)


def _column(path: str | os.PathLike[str], table: Any, name: str) -> HostArray:
    column = table.column(name)
    if column.null_count:
        raise DataError(f"column {name!r} of {os.fspath(path)} has missing values; fill them or remove their rows")
    array: HostArray = np.asarray(column)
    if array.dtype.kind not in "buif":
        raise DataError(
            f"column {name!r} of {os.fspath(path)} is not numeric ({column.type}); encode it, or exclude it with "
            "features=[...]"
        )
    return array
