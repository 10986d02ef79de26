"""The columns of a table, whatever holds it, as numbers or categories, with their missing values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.data.frames import column_names, is_missing, is_number, is_table, table_columns
from nnbackend.data.inputs import check_mask, is_sparse
from nnbackend.errors import InvalidInputError, shown

__all__ = ["FROM_DTYPE", "Column", "Table"]

#: The default of `categorical_features`: columns of text or of a categorical type are categories.
FROM_DTYPE = "from_dtype"

#: scikit-learn's words.
_COMPLEX = ". Complex data not supported"


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Attributes
    ----------
    label : hashable
        Its name, or its number if columns have no names.
    values : (n,) float64 array or list
        Numbers, with NaN where one is missing; or categories, which are text, truth values or numbers, and None where
        one is missing.
    """

    label: Any
    values: Any

    @property
    def is_categorical(self) -> bool:
        """Whether it has categories."""
        return isinstance(self.values, list)


class Table:
    """The columns of a data frame, an Arrow table or an array.

    Parameters
    ----------
    X : (n, columns) data frame, table or array_like

    Attributes
    ----------
    labels : list
        Names of the columns; their numbers, if they have no names.
    named : bool

    Raises
    ------
    InvalidInputError
        X is no table.
    """

    def __init__(self, X: Any) -> None:
        _check_kind(X)
        names = column_names(X)
        self._parts = _parts_of_array(X) if names is None else list(table_columns(X))
        self.named = names is not None
        self.labels = list(range(len(self._parts))) if names is None else names

    def columns(self, categorical_features: Any = FROM_DTYPE) -> list[Column]:
        """The columns with their values.

        Parameters
        ----------
        categorical_features : "from_dtype", None, or sequence of names, indices or truth values
            Which columns are categories even if they hold numbers. "from_dtype" and None: none, but those of text or of
            a categorical type always are.

        Raises
        ------
        InvalidInputError
            A column holds neither numbers nor categories; the message names the column.
        """
        chosen = _chosen(categorical_features, self.labels)
        return [
            _column(label, part, force) for label, part, force in zip(self.labels, self._parts, chosen, strict=True)
        ]


def _check_kind(X: Any) -> None:
    """Refuse what is no table."""
    check_mask("X", X)
    if is_sparse(X):
        raise InvalidInputError("X is a sparse matrix; give an array or a data frame, for example X.toarray()")
    if type(X).__name__ == "LazyFrame":
        raise InvalidInputError("X is a polars LazyFrame, which has no values yet; give X.collect()")
    if is_table(X) and column_names(X) is None:
        raise InvalidInputError("X must be a table, received a single column; give a data frame with it: X.to_frame()")


def _parts_of_array(X: Any) -> list[Any]:
    """The columns of an array or a list of rows."""
    try:
        array = X if isinstance(X, np.ndarray) else np.asarray(X, None if hasattr(X, "__array__") else object)
    except ValueError:
        raise InvalidInputError("the rows of X have different lengths") from None
    if array.ndim != 2:
        # scikit-learn's words.
        raise InvalidInputError(
            f"Expected 2D array, got {'scalar' if array.ndim == 0 else f'{array.ndim}D'} array instead: X must be a "
            f"table with rows and columns, received shape {array.shape}. Reshape your data: X.reshape(-1, 1) is a "
            "table with one column"
        )
    return [array[:, place] for place in range(array.shape[1])]


def _chosen(categorical_features: Any, labels: Sequence[Any]) -> list[bool]:
    """For each column, whether the caller says that it has categories."""
    given = categorical_features
    if given is None or (isinstance(given, str) and given == FROM_DTYPE):
        return [False] * len(labels)
    items = [] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidInputError(
            f"categorical_features must be 'from_dtype', None, or a list of columns, received {shown(given)}"
        )
    if items and all(isinstance(item, bool | np.bool_) for item in items):
        if len(items) != len(labels):
            raise InvalidInputError(
                f"categorical_features has {len(items)} truth values, but X has {len(labels)} columns; give one each"
            )
        return [bool(item) for item in items]
    chosen = [False] * len(labels)
    for item in items:
        whole = isinstance(item, int | np.integer) and not isinstance(item, bool)
        if item in labels:
            place = labels.index(item)
        elif whole and 0 <= item < len(labels):
            place = int(item)
        else:
            raise InvalidInputError(f"categorical_features names {shown(item)}, which is no column of X")
        chosen[place] = True
    return chosen


def _column(label: Any, part: Any, force: bool) -> Column:
    """A column from an array, or from a library's column."""
    if isinstance(part, np.ndarray):
        kind = {"b": "numbers", "u": "numbers", "i": "numbers", "f": "numbers", "O": "objects"}.get(
            part.dtype.kind, "text" if part.dtype.kind in "UT" else part.dtype.name
        )
        items: Any = part
    else:
        kind, items = part.kind, part.items if part.missing or part.kind != "numbers" else np.asarray(part.read())
    if kind == "numbers" and not force:
        return Column(label, _finite(label, _numbers(items)))
    values = [None if is_missing(item) else _plain(item) for item in _listed(items)]
    if kind == "numbers" or force:
        return Column(label, _categories(label, values))
    if kind == "objects" and all(value is None or is_number(value) for value in values):
        numbers = np.array([np.nan if value is None else float(value) for value in values], np.float64)
        return Column(label, _finite(label, numbers))
    if kind not in ("objects", "text", "categories"):
        raise InvalidInputError(
            f"column {label!r} holds {kind}; TabularClassifier and TabularRegressor take numbers, text and categories: "
            f"derive numbers from it, or leave it out{_COMPLEX if kind.startswith('complex') else ''}"
        )
    return Column(label, _categories(label, values))


def _listed(items: Any) -> list[Any]:
    if isinstance(items, np.ndarray) and items.dtype.kind == "f" and items.dtype.itemsize < 8:
        # As decimals, so that 0.1 is the same category in float32 and in float64.
        items = items.astype(str).astype(np.float64)
    return list(items.tolist() if isinstance(items, np.ndarray) else items())


def _numbers(items: Any) -> HostArray:
    """Numbers as float64, with NaN where one is missing."""
    if isinstance(items, np.ndarray):
        return items.astype(np.float64)
    return np.array([np.nan if is_missing(item) else float(item) for item in items()], np.float64)


def _finite(label: Any, values: HostArray) -> HostArray:
    """Check that there is no infinity."""
    if np.isinf(values).any():
        raise InvalidInputError(
            f"column {label!r} contains infinity in row {int(np.isinf(values).argmax())}; write NaN for a missing value"
        )
    return values


def _plain(item: Any) -> Any:
    """An item as text, a truth value or a number of Python, where it is one."""
    return item.item() if isinstance(item, np.generic) else item


def _categories(label: Any, values: list[Any]) -> list[Any]:
    """Check that all are of a kind that can be a category, and of one kind."""
    kinds = set()
    for row, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, str | bool | int | float):
            raise InvalidInputError(
                f"column {label!r} holds {type(value).__name__} objects, {shown(value)} in row {row}; categories must "
                "be text, numbers or truth values"
            )
        kinds.add("text" if isinstance(value, str) else "numbers")
    if len(kinds) > 1:
        raise InvalidInputError(
            f"column {label!r} holds both text and numbers; make them text, for example with .astype(str), or give "
            "numbers, with NaN where one is missing"
        )
    return values
