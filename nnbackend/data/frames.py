"""Data frames, Arrow tables and arrays of objects as arrays of numbers, column by column.

Reads pandas, polars and PyArrow without importing them.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError, shown

__all__ = [
    "Column",
    "column_names",
    "from_objects",
    "from_table",
    "is_missing",
    "is_number",
    "is_table",
    "library",
    "missing_error",
    "table_columns",
]

#: Most columns that an error names.
_MOST_NAMED = 5

_KINDS = {"M": "dates", "m": "durations", "c": "complex numbers", "S": "text", "U": "text", "T": "text", "V": "records"}

#: Parts of the names of types, in the order in which to look for them.
_PARTS = (
    ("duration", "durations"),
    ("struct", "records"),
    ("str", "text"),
    ("utf8", "text"),
    ("binary", "bytes"),
    ("date", "dates"),
    ("time", "dates"),
    ("period", "dates"),
    ("interval", "intervals"),
    ("list", "lists"),
)


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : hashable
    kind : str
        "numbers", "objects", or what else it holds.
    dtype : str
        The library's name of its type.
    missing : int
        Number of missing values.
    read : callable
        Returns the values as an array, if there are no missing ones.
    items : callable
        Returns the values as a list of Python objects, with missing ones.
    """

    name: Any
    kind: str
    dtype: str
    missing: int
    read: Callable[[], Any]
    items: Callable[[], list[Any]]


def library(value: Any) -> str:
    """The name of the package that defines the type of `value`."""
    return type(value).__module__.partition(".")[0]


def is_table(value: Any) -> bool:
    """Whether `value` is a data frame, a column of one, or an Arrow table or array."""
    kinds = {
        "pandas": ("DataFrame", "Series"),
        "polars": ("DataFrame", "Series", "LazyFrame"),
        "pyarrow": ("Table", "RecordBatch", "ChunkedArray"),
    }
    bases = [base for base in type(value).__mro__ if base.__module__.partition(".")[0] in kinds]
    if library(value) == "pandas" and hasattr(value, "isna") and hasattr(value, "to_numpy"):
        return True  # An Index or an extension array.
    if library(value) == "pyarrow" and hasattr(value, "null_count"):
        return True
    return any(base.__name__ in kinds[base.__module__.partition(".")[0]] for base in bases)


def column_names(value: Any) -> list[Any] | None:
    """The names of a table's columns; None for anything else."""
    names = getattr(value, "column_names", None) if library(value) == "pyarrow" else getattr(value, "columns", None)
    if names is None or not is_table(value):
        return None
    return list(names)


def from_table(what: str, value: Any) -> HostArray:
    """The values of a data frame (n, columns) or of a single column (n,).

    The dtype is that of all columns, if they have the same; otherwise NumPy's common type for them.

    Raises
    ------
    InvalidInputError
        A column has missing values, or contains something other than numbers. The message names all of them.
    """
    if type(value).__name__ == "LazyFrame":
        raise InvalidInputError(f"{what} is a polars LazyFrame, which has no values yet; give {what}.collect()")
    frame = column_names(value) is not None
    if frame and library(value) == "pandas" and (plain := _one_block(value)) is not None:
        return plain
    columns = list(table_columns(value))
    rows = len(value)
    if not columns:
        return np.empty((rows, 0))
    _check_kinds(what, value, columns)
    lacking = {column.name: column.missing for column in columns if column.missing}
    if lacking:
        raise missing_error(what, lacking, frame, _fill(what, value))
    arrays = [_values(what, column, frame) for column in columns]
    if not frame:
        return arrays[0]
    joined = np.empty((rows, len(arrays)), np.result_type(*(array.dtype for array in arrays)))
    for place, array in enumerate(arrays):
        joined[:, place] = array
    return joined


def _one_block(frame: Any) -> HostArray | None:
    """The values of a pandas frame whose columns have the same NumPy type and no NaN."""
    dtypes = set(frame.dtypes)
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    if not isinstance(dtype, np.dtype) or dtype.kind not in "buif":
        return None
    values: HostArray = np.asarray(frame.to_numpy())
    return None if dtype.kind == "f" and np.isnan(values).any() else values


def missing_error(what: str, lacking: dict[Any, int], named: bool, remedy: str) -> InvalidInputError:
    """The error for missing values; `lacking` has their numbers by column."""
    total = sum(lacking.values())
    values = f"{total:,} missing value{'' if total == 1 else 's'}"
    if not named:
        return InvalidInputError(f"{what} has {values}; {remedy}")
    each = [f"{count:,} in column {name!r}" for name, count in list(lacking.items())[:_MOST_NAMED]]
    return InvalidInputError(f"{what} has {values}: {_listed(each, len(lacking))}; {remedy}")


def _fill(what: str, value: Any) -> str:
    if library(value) == "pandas":
        if what == "x" and column_names(value) is not None:
            return (
                "fill them in, for example with x.fillna(0), or keep = x.notna().all(axis=1); x, y = x[keep], y[keep]"
            )
        return f"remove those rows, for example with keep = {what}.notna()"
    if library(value) == "polars":
        return f"fill them in, for example with {what}.fill_null(0), or remove those rows"
    return "fill them in, or remove those rows"


def _listed(words: Sequence[str], total: int) -> str:
    return ", ".join(words) + (f" and {total - len(words):,} more" if total > len(words) else "")


def table_columns(value: Any) -> Iterator[Column]:
    """The columns of a table, or a single column."""
    names = column_names(value)
    if library(value) == "pandas":
        if names is None:
            yield _pandas_column(getattr(value, "name", None), value)
        for place, name in enumerate(names or ()):
            yield _pandas_column(name, value.iloc[:, place])
    elif library(value) == "polars":
        for series in [value] if names is None else value.get_columns():
            yield _polars_column(series)
    else:
        for place, name in enumerate(names or [None]):
            yield _arrow_column(name, value if names is None else value.column(place))


def _pandas_column(name: Any, series: Any) -> Column:
    dtype = series.dtype
    kind = getattr(dtype, "kind", "O")
    plain = isinstance(dtype, np.dtype)
    missing = int(series.isna().sum())
    if str(dtype) == "category":
        return Column(name, "categories", "category", missing, series.to_numpy, series.tolist)
    if kind in "buif":
        as_numpy = dtype if plain else getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", None))
        read = partial(series.to_numpy, dtype=as_numpy)
        return Column(name, "numbers", str(dtype), missing, lambda: np.asarray(read()), series.tolist)
    found = _kind_of_text(str(dtype), kind)
    return Column(name, found, str(dtype), missing, lambda: series.to_numpy(dtype=object), series.tolist)


def _polars_column(series: Any) -> Column:
    dtype = series.dtype
    text = str(dtype)
    if text == "Boolean" or (dtype.is_numeric() and not text.startswith("Decimal")):
        # A NaN is a value for polars; the check of values reports it.
        return Column(series.name, "numbers", text, series.null_count(), series.to_numpy, series.to_list)
    kind = "categories" if text.startswith(("Categorical", "Enum")) else _kind_of_text(text, "O")
    as_objects = partial(np.array, dtype=object)
    return Column(series.name, kind, text, series.null_count(), lambda: as_objects(series.to_list()), series.to_list)


def _arrow_column(name: Any, array: Any) -> Column:
    text = str(array.type)
    numeric = text in ("bool", "double", "float", "halffloat") or text.startswith(("int", "uint"))
    kind = "numbers" if numeric else "categories" if text.startswith("dictionary") else _kind_of_text(text, "O")
    chunked = hasattr(array, "chunks")

    def read() -> Any:
        if not numeric:
            return np.array(array.to_pylist(), dtype=object)
        return array.to_numpy() if chunked else array.to_numpy(zero_copy_only=False)

    return Column(name, kind, text, array.null_count, read, array.to_pylist)


def _kind_of_text(dtype: str, kind: str) -> str:
    """What a column holds, from the name and NumPy's kind of its type."""
    if kind in _KINDS:
        return _KINDS[kind]
    lower = dtype.lower()
    for part, name in _PARTS:
        if part in lower:
            return name
    return "objects"


def _check_kinds(what: str, value: Any, columns: Sequence[Column]) -> None:
    """Reject columns that do not contain numbers, in one error."""
    wrong = [(column.name, kind, column.dtype) for column in columns if (kind := _found(column)) != "numbers"]
    if not wrong:
        return
    if column_names(value) is None:
        _, kind, dtype = wrong[0]
        raise InvalidInputError(f"{what} must hold numbers, received {kind} (dtype {dtype}); {_encode(what, value)}")
    named = _listed([f"{name!r} holds {kind} ({dtype})" for name, kind, dtype in wrong[:_MOST_NAMED]], len(wrong))
    names = [name for name, kind, _ in wrong if kind in ("text", "categories")]
    raise InvalidInputError(f"{what} must hold numbers, but column {named}; {_remedy(what, value, names)}")


def _found(column: Column) -> str:
    """What a column holds, judged by its values if it holds objects."""
    if column.kind != "objects":
        return column.kind
    for item in column.read():
        if not (is_number(item) or is_missing(item)):
            return "text" if isinstance(item, str) else f"{type(item).__name__} objects"
    return "numbers"


def _remedy(what: str, value: Any, names: Sequence[Any]) -> str:
    if not names:
        return "derive numbers from it, or leave it out"
    if what != "x":
        return _encode(what, value)
    if library(value) == "pandas":
        return f"encode it, for example with pandas.get_dummies(x, columns={names!r})"
    if library(value) == "polars":
        return f"encode it, for example with x.to_dummies({names!r})"
    return "encode it, for example with pandas.get_dummies(x.to_pandas())"


def _encode(what: str, value: Any) -> str:
    if what == "y":
        given = "y.to_numpy()" if hasattr(value, "to_numpy") else "y"
        return f"for class names, number them: names, y = numpy.unique({given}, return_inverse=True)"
    return "convert it to numbers"


def _values(what: str, column: Column, named: bool) -> HostArray:
    array = np.asarray(column.read())
    if array.dtype == object:
        return from_objects(what, array, column.name if named else None)
    return array


def is_number(item: Any) -> bool:
    """Whether `item` is a real number or a truth value."""
    return isinstance(item, numbers.Real | np.bool_ | Decimal) and not is_missing(item)


def is_missing(item: Any) -> bool:
    """Whether `item` is None, NaN, or the marker of a library."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return True
    try:
        return isinstance(item, numbers.Real | Decimal) and math.isnan(item)
    except (OverflowError, ValueError):
        return False


def from_objects(what: str, values: HostArray, column: Any = None) -> HostArray:
    """An array of Python objects as int64, if all are whole numbers, or else float64.

    Raises
    ------
    InvalidInputError
        Some are missing, or are not numbers; the message says which.
    """
    flat = values.reshape(-1)
    lacking: dict[Any, int] = {}
    whole = True
    width = math.prod(values.shape[1:]) or 1
    for place, item in enumerate(flat):
        if is_number(item):
            whole = whole and isinstance(item, numbers.Integral | np.bool_)
        elif is_missing(item):
            where = place % width if column is None else column
            lacking[where] = lacking.get(where, 0) + 1
        else:
            raise _not_a_number(what, item, divmod(place, width), values.ndim, column)
    if lacking:
        raise missing_error(what, lacking, values.ndim > 1 or column is not None, "fill them in, or remove those rows")
    try:
        return np.array(
            [int(item) if whole else float(item) for item in flat], np.int64 if whole else np.float64
        ).reshape(values.shape)
    except OverflowError:
        try:
            return np.array([float(item) for item in flat]).reshape(values.shape)
        except OverflowError:
            raise InvalidInputError(f"{what} holds numbers beyond the range of float64") from None


def _not_a_number(what: str, item: Any, place: tuple[int, int], axes: int, column: Any) -> InvalidInputError:
    row, feature = place
    where = f"row {row}" if axes < 2 else f"row {row}, feature {feature}"
    if column is not None:
        where = f"row {row} of column {column!r}"
    kind = "text" if isinstance(item, str | bytes) else f"{type(item).__name__} objects"
    remedy = _encode(what, None) if isinstance(item, str | bytes) else "convert it to numbers"
    if isinstance(item, list | tuple | np.ndarray):
        kind, remedy = "sequences, perhaps of different lengths", "all rows must have the same length"
    return InvalidInputError(
        f"{what} must hold numbers, received dtype object with {kind}: {shown(item)} in {where}; {remedy}"
    )
