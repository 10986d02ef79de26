"""Read the tables that ``nnbackend train``, ``predict`` and ``evaluate`` take: CSV, Parquet and NPZ files.

CSV files are read as text first, because they do not say what their columns hold. A model that is already fitted
decides for the columns that it knows. pandas would rename duplicate columns and fill short rows without a word.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.datasets.tables import arrow_table
from nnbackend.errors import DataError, NNBackendError, shown
from nnbackend.support.extras import install_command
from nnbackend.support.files import open_regular

__all__ = ["MISSING", "Table", "read_table", "whole_numbers"]

#: Texts that mean a missing value in a CSV file: those of pandas, and "?", which many public tables use.
MISSING = frozenset((
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "?",
))  # fmt: skip

#: Largest file, in bytes.
_MOST = 1 << 30

#: Delimiters that are recognised, and the lines from which they are.
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SNIFFED = 50

#: The first bytes of other kinds of files.
_PARQUET, _ZIP, _GZIP = b"PAR1", b"PK\x03\x04", b"\x1f\x8b"

#: Byte order marks and their encodings; that of UTF-32 begins like that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip

#: Longest text in a cell of a CSV file, in characters.
_LONGEST = 1 << 20

#: Numbers as other countries or spreadsheets write them.
_WITH_COMMAS = re.compile(r"[-+]?(\d[\d.]*)?,\d[\d.,]*")

#: From here on, not every whole number is a float64.
_EXACT = 2**53

_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Table:
    """The columns of a table in a file.

    Attributes
    ----------
    path : str
    form : str
        The kind of file, for people to read.
    rows : int
    columns : dict
        By name: the values as an array, as a list of objects with None where one is missing, or as a list of text.
        Numbers are float64 or, if that would change a whole number, integers.
    raw : bool
        Whether all columns are text that may stand for something else.
    notes : list of str
        What was left out.
    """

    path: str
    form: str
    rows: int
    columns: Mapping[str, Any]
    raw: bool
    notes: Sequence[str] = field(default=())

    def check_columns(self, names: Sequence[str]) -> None:
        """Check that the table has these columns.

        Raises
        ------
        DataError
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise DataError(
                f"{self.path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing[:9]))}"
                f"{', ...' if len(missing) > 9 else ''}, which the model needs; it has {_listed(self.columns)}"
            )

    def values(self, name: str, text: bool | None = None) -> Any:
        """The values of a column: an array with NaN, or a list of objects with None, where one is missing.

        Parameters
        ----------
        name : str
        text : bool, optional
            Whether the column of a CSV file holds text, even if it looks like numbers. Default: text unless all values
            are numbers, or all are true or false.

        Raises
        ------
        DataError
            A value is no number although `text` is false, or numbers are written in a way that is not understood.
        """
        given = self.columns[name]
        if not self.raw:
            return given
        cells = [None if cell in MISSING or cell.strip() in MISSING else cell for cell in given]
        if text:
            return cells
        present = [cell for cell in cells if cell is not None]
        numbers = _numbers(cells)
        if numbers is not None:
            whole = None if _is_exact(numbers) else _whole(cells)
            return numbers if whole is None else whole
        truths = [_TRUTH.get(cell.strip().lower()) for cell in present]
        if None not in truths:
            found = iter(truths)
            return [None if cell is None else next(found) for cell in cells]
        if all(_WITH_COMMAS.fullmatch(cell.strip()) or _is_number(cell) for cell in present):
            wrong = next(cell for cell in present if "," in cell)
            raise DataError(
                f"{self.path}: column {name!r} has numbers with commas, such as {wrong!r}; write them with a decimal "
                "point, and without separators of thousands"
            )
        if text is False:
            row = next(row for row, cell in enumerate(cells) if cell is not None and not _is_number(cell))
            raise DataError(
                f"{self.path}: column {name!r} must hold numbers, received {shown(cells[row])} in row {row + 1}; "
                "correct the value, or leave it empty"
            )
        return cells

    def frame(self, names: Sequence[str], text: Mapping[str, bool | None] | None = None) -> Any:
        """Some columns as a data frame of pandas; `text` as `values` takes it, by name.

        Raises
        ------
        DataError
        ImportError
            The package pandas is missing.
        """
        try:
            from pandas import DataFrame, Series
        except ImportError as error:
            raise ImportError(f"tables need the package pandas: {install_command('pandas')}") from error
        found: dict[str, Any] = {}
        for name in names:
            values = self.values(name, (text or {}).get(name))
            found[name] = Series(values, dtype=object) if isinstance(values, list) else values
        return DataFrame(found, columns=list(names))


def read_table(path: str, encoding: str | None = None) -> Table:
    """Read a table; its contents decide which kind of file it is.

    Parameters
    ----------
    path : str
    encoding : str, optional
        Of a CSV file. Default: UTF-8, or what its first bytes say.

    Raises
    ------
    DataError
        The file is missing, damaged or no table.
    ImportError
        A package is missing that reads such files.
    """
    try:
        with os.fdopen(open_regular(Path(path).expanduser()), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > _MOST:
                raise DataError(f"{path} has {size:,} bytes; a table may have at most {_MOST:,}")
            contents = stream.read(len(_PARQUET))
            # PyArrow reads a Parquet file itself.
            if contents != _PARQUET:
                contents += stream.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    if contents == _PARQUET:
        table = _from_parquet(path)
    elif contents.startswith(_ZIP):
        table = _from_npz(path, contents)
    else:
        table = _from_csv(path, contents, encoding)
    if not table.columns or not table.rows:
        raise DataError(f"{path} has no {'rows' if table.columns else 'columns'}")
    return table


def _listed(names: Any) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")


def _check_names(path: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has several columns called {', '.join(map(repr, twice[:9]))}; rename all but one")


# ---- CSV -------------------------------------------------------------------------------------------------------------


def _from_csv(path: str, contents: bytes, encoding: str | None) -> Table:
    text = _decoded(path, contents, encoding)
    delimiter = _delimiter(text)
    lines = _lines(path, text, delimiter)
    header = next(lines, None)
    if header is None:
        raise DataError(f"{path} is empty")
    names = [name.strip() for name in header[1]]
    if all(_is_number(name) for name in names):
        raise DataError(
            f"{path}: the first line must hold the names of the columns, received numbers: {shown(', '.join(names))}; "
            "add a line with names"
        )
    _check_names(path, [name for name in names if name])
    rows: list[list[str]] = []
    for line, cells in lines:
        if len(cells) != len(names):
            raise DataError(
                f"{path}: line {line} has {len(cells)} values, but the first line has {len(names)} names of columns "
                f"(separated by {_DELIMITERS[delimiter]})"
            )
        rows.append(cells)
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    unnamed = names.count("")
    columns.pop("", None)
    notes = [f"{unnamed} column{'s' if unnamed > 1 else ''} without a name left out"] if unnamed else []
    return Table(path, f"CSV, separated by {_DELIMITERS[delimiter]}", len(rows), columns, True, notes)


def _decoded(path: str, contents: bytes, encoding: str | None) -> str:
    """The text of a CSV file, without a byte order mark."""
    if encoding is not None:
        _check_encoding(encoding)
    mark, marked = next(((mark, name) for mark, name in _MARKS.items() if contents.startswith(mark)), (b"", None))
    no_table = f"{path} is no table; tables are CSV, Parquet or NPZ files"
    if marked is None and encoding is None and b"\0" in contents[:4096]:
        raise DataError(no_table)
    if contents.startswith(_GZIP):
        raise DataError(f"{path} is compressed; unpack it first, for example with gunzip")
    name = marked or encoding or "utf-8"
    readable = name.removesuffix("-sig").upper()
    try:
        text = contents.decode(name)
    except ValueError as error:
        line = contents.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise DataError(
            f"{path} is not {readable} (line {line}); say which encoding it has, for example --encoding cp1252 for "
            "files of Excel"
        ) from error
    if marked and encoding and not _is_text_of(contents, mark, encoding, text):
        raise DataError(
            f"{path} has the byte order mark of {readable}, but --encoding is {encoding}; leave --encoding out"
        )
    if "\0" in text[:4096]:
        raise DataError(f"{no_table}, or its encoding is not {readable}")
    return text


def _check_encoding(encoding: str) -> None:
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):
        raise DataError(f"--encoding: unknown encoding {encoding!r}; known are utf-8, latin-1, cp1252 ...") from None


def _is_text_of(contents: bytes, mark: bytes, encoding: str, text: str) -> bool:
    """Whether an encoding gives this text, with the byte order mark or, if it does not know it, without."""
    for part in (contents, contents.removeprefix(mark)):
        try:
            if part.decode(encoding).removeprefix("\ufeff") == text:
                return True
        except ValueError:
            continue
    return False


def _lines(path: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers."""
    before = csv.field_size_limit(_LONGEST)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} cannot be read: {error}") from error
    finally:
        csv.field_size_limit(before)


def _delimiter(text: str) -> str:
    """The delimiter that gives the first lines the same number of columns, and the most."""
    start = io.StringIO(text, newline="")
    sample = "".join(line for line, _ in zip(start, range(_SNIFFED), strict=False))
    best, most = ",", (False, 1)
    for delimiter in _DELIMITERS:
        try:
            counts = [len(cells) for cells in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if cells]
        except csv.Error:
            continue
        found = (len(set(counts)) == 1 and counts[0] > 1, counts[0] if counts else 1)
        if found > most:
            best, most = delimiter, found
    return best


def _numbers(cells: Sequence[str | None]) -> Any:
    """The cells as numbers; None if one is something else."""
    if any(cell is not None and "_" in cell for cell in cells):
        # Python reads 1_000 as a number.
        return None
    try:
        return np.array([math.nan if cell is None else float(cell) for cell in cells])
    except ValueError:
        return None


def _is_number(cell: str) -> bool:
    return _numbers([cell]) is not None


def _is_exact(numbers: Any) -> bool:
    """Whether float64 holds these numbers exactly, if they are whole."""
    return not (np.abs(numbers[np.isfinite(numbers)]) >= _EXACT).any()


def _whole(cells: Sequence[str | None]) -> Any:
    """The cells as integers, a list if some are missing; None if they are not all whole numbers of at most 64 bits."""
    try:
        values = [None if cell is None else int(cell) for cell in cells]
    except ValueError:
        return None
    found = whole_numbers([value for value in values if value is not None])
    return found if found is None or len(found) == len(values) else values


def whole_numbers(values: Sequence[int]) -> np.ndarray[Any, Any] | None:
    """Integers as an array; None if neither int64 nor uint64 holds all of them. NumPy's choice may be float64."""
    dtype = np.int64 if max(values) < 2**63 else np.uint64
    limits = np.iinfo(dtype)
    return np.array(values, dtype) if limits.min <= min(values) and max(values) <= limits.max else None


# ---- Parquet and NPZ -------------------------------------------------------------------------------------------------


def _from_parquet(path: str) -> Table:
    table = arrow_table(Path(path).expanduser())
    names = [str(name) for name in table.column_names]
    _check_names(path, names)
    columns: dict[str, Any] = {}
    for name, column in zip(names, table.columns, strict=True):
        text = str(column.type)
        if text in ("double", "float", "halffloat"):
            columns[name] = column.to_numpy().astype(np.float64)
        elif text.startswith(("int", "uint")):
            numbers = column.to_numpy()
            exact = column.to_pylist() if column.null_count else numbers
            columns[name] = numbers.astype(np.float64) if _is_exact(numbers.astype(np.float64)) else exact
        else:
            columns[name] = column.to_pylist()
    return Table(path, "Parquet", table.num_rows, columns, False)


def _from_npz(path: str, contents: bytes) -> Table:
    """The arrays of an NPZ file: each is a column, or if it has two axes several of them."""
    columns: dict[str, Any] = {}
    names: list[str] = []
    try:
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    raise DataError(f"{path} is an archive of other files than arrays; tables are CSV, Parquet or NPZ")
                array = _array(path, archive, info)
                name = info.filename.removesuffix(".npy")
                parts = {name: array} if array.ndim == 1 else {f"{name}{k}": array[:, k] for k in range(array.shape[1])}
                names += parts
                columns.update({each: _column_of(part) for each, part in parts.items()})
    except NNBackendError:
        raise
    except Exception as error:
        # A damaged archive raises errors of zipfile, zlib and NumPy.
        raise DataError(f"{path} cannot be read; it may be damaged: {error}") from error
    _check_names(path, names)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{name} {rows:,}" for name, rows in list(lengths.items())[:9])
        raise DataError(f"{path}: the arrays must have the same number of rows, received {described}")
    return Table(path, "NPZ", next(iter(lengths.values()), 0), columns, False)


def _array(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    """An array of an archive, if it can be columns of a table."""
    what = f"{path}: the array {info.filename.removesuffix('.npy')!r}"
    with archive.open(info) as member:
        # The size that the archive claims need not be true.
        contents = io.BytesIO(member.read(_MOST + 1))
    if contents.getbuffer().nbytes > _MOST:
        raise DataError(f"{what} has more than {_MOST:,} bytes")
    version = np.lib.format.read_magic(contents)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(contents)
    if dtype.hasobject or dtype.kind not in "biufU":
        raise DataError(f"{what} must hold numbers or text, received {dtype}")
    if len(shape) not in (1, 2) or 0 in shape:
        raise DataError(f"{what} must have one axis, or two, rows and columns; received shape {shape}")
    if math.prod(shape) * dtype.itemsize > contents.getbuffer().nbytes:
        raise DataError(f"{what} claims more values than the file holds")
    contents.seek(0)
    return np.lib.format.read_array(contents, allow_pickle=False)


def _column_of(array: Any) -> Any:
    """A column of a table: numbers as an array, text and truth values as objects."""
    if array.dtype.kind not in "iuf":
        return array.tolist()
    numbers = array.astype(np.float64)
    return numbers if array.dtype.kind == "f" or _is_exact(numbers) else array
