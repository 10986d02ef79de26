"""Generates kinds of inputs and targets: dtype x container x shape x missing and extreme values."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import array_api_strict
import h5py
import numpy as np
import pandas
import polars
import pyarrow
import scipy.sparse

from nnbackend.data.scale import Images

__all__ = ["LABELS", "ROWS", "Kind", "inputs", "targets"]

#: The plain values: every dtype represents them.
ROWS = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0], [1, 1, 1]], np.float64)
LABELS = np.array([0, 1, 1, 0, 0, 1])

_INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
_FLOATS = ["float16", "float32", "float64", "longdouble"]
_NAMES = ["a", "b", "c"]


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes
    ----------
    name : str
    make : callable
        Called with an empty folder; returns a new value of that kind.
    """

    name: str
    make: Callable[[Path], Any]


class _Given:
    """An object that NumPy reads through its method `__array__`."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if isinstance(self._values, Exception):
            raise self._values
        return np.asarray(self._values, dtype)


def inputs() -> list[Kind]:
    """Kinds of x; those that can be read have the values of `ROWS`."""
    return [*_arrays(ROWS), *_layouts(ROWS), *_tables(ROWS), *_sparse(ROWS), *_stored(), *_bad_values(), *_no_rows()]


def targets() -> list[Kind]:
    """Kinds of y; those that can be read have the values of `LABELS`."""
    one_hot = np.eye(2)[LABELS]
    return [
        *_arrays(LABELS),
        *_layouts(LABELS),
        *_columns(LABELS),
        *(_renamed(kind, "one-hot") for kind in (*_arrays(one_hot), *_layouts(one_hot), *_sparse(one_hot))),
        *_bad_labels(),
    ]


def _renamed(kind: Kind, prefix: str) -> Kind:
    return Kind(f"{prefix} {kind.name}", kind.make)


def _arrays(values: Any) -> Iterator[Kind]:
    """Every dtype, every container."""
    for dtype in ["bool", *_INTEGERS, *_FLOATS]:
        yield Kind(f"array {dtype}", lambda folder, dtype=dtype: values.astype(dtype))
    for dtype in (">f4", ">f8", ">i4", ">u2", "<f8"):
        yield Kind(f"array {dtype}", lambda folder, dtype=dtype: values.astype(dtype))
    for name, convert in (("int", int), ("float", float), ("bool", bool), ("Decimal", decimal.Decimal)):
        flat = [convert(value) for value in values.ravel().tolist()]
        yield Kind(f"array of {name} objects", lambda folder, flat=flat: _objects(flat, values.shape))
    yield Kind("list", lambda folder: values.tolist())
    yield Kind("list of bool", lambda folder: values.astype(bool).tolist())
    yield Kind("tuple", lambda folder: tuple(values.tolist()))
    yield Kind("list of arrays", lambda folder: list(values))
    yield Kind("deque", lambda folder: collections.deque(values.tolist()))
    yield Kind("memoryview", lambda folder: memoryview(np.ascontiguousarray(values)))
    yield Kind("array-api-strict", lambda folder: array_api_strict.asarray(values))
    yield Kind("object with __array__", lambda folder: _Given(values))
    if values.ndim == 1:
        yield Kind("array.array", lambda folder: array.array("i", values.tolist()))


def _objects(flat: list[Any], shape: tuple[int, ...]) -> Any:
    made = np.empty(len(flat), object)
    made[:] = flat
    return made.reshape(shape)


def _layouts(values: Any) -> Iterator[Kind]:
    def read_only(folder: Path) -> Any:
        made = values.copy()
        made.setflags(write=False)
        return made

    def memmap(folder: Path) -> Any:
        np.save(folder / "values.npy", values)
        return np.load(folder / "values.npy", mmap_mode="r")

    yield Kind("array in Fortran order", lambda folder: np.asfortranarray(values))
    yield Kind("array with negative strides", lambda folder: np.ascontiguousarray(values[::-1])[::-1])
    yield Kind("array with gaps", lambda folder: np.repeat(values, 2, axis=0)[::2])
    yield Kind("array read-only", read_only)
    yield Kind("array unaligned", lambda folder: _unaligned(values))
    yield Kind("memory map", memmap)
    yield Kind("masked array, none masked", lambda folder: np.ma.masked_array(values))
    yield Kind("masked array, one masked", lambda folder: _masked(values))
    yield Kind("images of a data set", lambda folder: values.astype(np.uint8).view(Images))
    if values.ndim == 2:
        yield Kind("matrix", lambda folder: _matrix(values))


def _unaligned(values: Any) -> Any:
    memory = np.zeros(values.nbytes + 1, np.uint8)
    made = memory[1:].view(values.dtype).reshape(values.shape)
    made[...] = values
    return made


def _masked(values: Any) -> Any:
    mask = np.zeros(values.shape, bool)
    mask.reshape(-1)[2] = True
    return np.ma.masked_array(values, mask)


def _matrix(values: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.asmatrix(values)


def _tables(values: Any) -> Iterator[Kind]:
    columns = dict(zip(_NAMES, values.T, strict=True))
    for dtype in ["bool", *_INTEGERS, *_FLOATS[:3], "object", "Sparse[float64]"]:
        yield Kind(f"pandas {dtype}", lambda folder, dtype=dtype: pandas.DataFrame(columns).astype(dtype))
    for dtype in ["boolean", "Int8", "UInt8", "Int64", "UInt32", "Float32", "Float64"]:
        yield Kind(f"pandas {dtype}", lambda folder, dtype=dtype: pandas.DataFrame(columns).astype(dtype))
        yield Kind(f"pandas {dtype} with NA", lambda folder, dtype=dtype: _with_na(columns, dtype))
    for dtype in ["bool[pyarrow]", "int8[pyarrow]", "int64[pyarrow]", "float[pyarrow]", "double[pyarrow]"]:
        yield Kind(f"pandas {dtype}", lambda folder, dtype=dtype: pandas.DataFrame(columns).astype(dtype))
        yield Kind(f"pandas {dtype} with NA", lambda folder, dtype=dtype: _with_na(columns, dtype))
    mixed = {"a": values[:, 0], "b": values[:, 1].astype(bool), "c": values[:, 2].astype("int8")}
    yield Kind("pandas float, bool and int", lambda folder: pandas.DataFrame(mixed))
    for name, extra in _EXTRA.items():
        yield Kind(f"pandas with {name}", lambda folder, extra=extra: pandas.DataFrame({**mixed, "c": extra()}))
    for dtype in ["Boolean", "Int8", "UInt8", "Int64", "Float32", "Float64"]:
        kind = getattr(polars, dtype)
        yield Kind(f"polars {dtype}", lambda folder, kind=kind: polars.DataFrame(columns).cast(kind))
        yield Kind(f"polars {dtype} with null", lambda folder, kind=kind: _with_null(columns, kind))
    yield Kind("polars float, bool and int", lambda folder: polars.DataFrame(mixed))
    yield Kind("polars with text", lambda folder: polars.DataFrame({**mixed, "c": ["x"] * 6}))
    yield Kind("polars lazy", lambda folder: polars.DataFrame(mixed).lazy())
    yield Kind("pyarrow table", lambda folder: pyarrow.table(mixed))
    yield Kind("pyarrow table with null", lambda folder: pyarrow.table({**mixed, "c": [None, *[1.0] * 5]}))
    yield Kind("pyarrow table with text", lambda folder: pyarrow.table({**mixed, "c": ["x"] * 6}))


#: Columns of a data frame that are not numbers.
_EXTRA: dict[str, Callable[[], Any]] = {
    "text": lambda: ["x"] * 6,
    "text that is numbers": lambda: ["1"] * 6,
    "categories": lambda: pandas.Categorical([1, 2, 3, 1, 2, 3]),
    "dates": lambda: [datetime.datetime(2026, 1, 1)] * 6,
    "durations": lambda: [datetime.timedelta(1)] * 6,
    "complex numbers": lambda: [1j] * 6,
    "lists": lambda: [[1]] * 6,
    "NaN": lambda: [np.nan, *[1.0] * 5],
    "None": lambda: np.array([None, *[1.0] * 5], object),
}


def _with_na(columns: dict[str, Any], dtype: str) -> Any:
    frame = pandas.DataFrame(columns).astype(dtype)
    frame.iloc[1, 2] = pandas.NA
    return frame


def _with_null(columns: dict[str, Any], kind: Any) -> Any:
    frame = polars.DataFrame(columns).cast(kind)
    return frame.with_columns(polars.Series("c", [None, *frame["c"][1:]], kind))


def _sparse(values: Any) -> Iterator[Kind]:
    for form, dtype in itertools.product(["csr_matrix", "csr_array", "csc_array", "coo_array"], ["float64", "int8"]):
        make = getattr(scipy.sparse, form)
        yield Kind(f"{form} {dtype}", lambda folder, make=make, dtype=dtype: make(values.astype(dtype)))


def _stored() -> Iterator[Kind]:
    for dtype in ("uint8", "float32", "float64", ">i2"):

        def made(folder: Path, dtype: str = dtype) -> Any:
            file = h5py.File(folder / "values.h5", "w")
            return file.create_dataset("values", data=ROWS.astype(dtype))

        yield Kind(f"HDF5 {dtype}", made)


def _bad_values() -> Iterator[Kind]:
    for value in (np.nan, np.inf, -np.inf, 1e39):
        for container in ("array", "list", "csr_array"):
            yield Kind(f"{container} with {value}", lambda folder, value=value, c=container: _with(value, c))
    for name, value in (("None", None), ("NA", pandas.NA), ("NaT", pandas.NaT), ("text", "x"), ("dict", {})):
        yield Kind(f"array of objects with {name}", lambda folder, value=value: _object_with(value))
    yield Kind("list with None", lambda folder: [[None, 1.0, 1.0], *ROWS[1:].tolist()])
    yield Kind("array complex128", lambda folder: ROWS.astype(complex))
    yield Kind("array of text", lambda folder: ROWS.astype(str))
    yield Kind("array of bytes", lambda folder: ROWS.astype("S3"))
    yield Kind("array datetime64", lambda folder: ROWS.astype(int).astype("M8[D]"))
    yield Kind("array timedelta64", lambda folder: ROWS.astype(int).astype("m8[s]"))
    yield Kind("records", lambda folder: np.zeros(6, [("a", float), ("b", int), ("c", bool)]))


def _with(value: float, container: str) -> Any:
    rows = ROWS.copy()
    rows[3, 1] = value
    return {"array": lambda: rows, "list": rows.tolist, "csr_array": lambda: scipy.sparse.csr_array(rows)}[container]()


def _object_with(value: Any) -> Any:
    made = ROWS.astype(object)
    made[3, 1] = value
    return made


def _no_rows() -> Iterator[Kind]:
    yield Kind("None", lambda folder: None)
    yield Kind("number", lambda folder: 1.0)
    yield Kind("array without axes", lambda folder: np.array(1.0))
    yield Kind("text", lambda folder: "rows.csv")
    yield Kind("path", lambda folder: Path("rows.csv"))
    yield Kind("dict of columns", lambda folder: dict(zip(_NAMES, ROWS.T.tolist(), strict=True)))
    yield Kind("set", lambda folder: {1.0, 2.0})
    yield Kind("generator", lambda folder: (row for row in ROWS))
    yield Kind("function", lambda folder: _no_rows)
    yield Kind("object whose __array__ fails", lambda folder: _Given(RuntimeError("no")))
    yield Kind("empty list", lambda folder: [])
    yield Kind("no rows", lambda folder: ROWS[:0])
    yield Kind("no columns", lambda folder: ROWS[:, :0])
    yield Kind("ragged list", lambda folder: [[1.0, 2.0, 3.0], [1.0]])
    yield Kind("list with a None row", lambda folder: [*ROWS.tolist(), None])
    yield Kind("one row as a flat array", lambda folder: ROWS[0])
    yield Kind("a column too few", lambda folder: ROWS[:, :2])
    yield Kind("a column too many", lambda folder: np.hstack([ROWS, ROWS]))
    yield Kind("pandas with a column too few", lambda folder: pandas.DataFrame(ROWS[:, :2]))
    yield Kind("pandas without columns", lambda folder: pandas.DataFrame(index=range(6)))


def _columns(values: Any) -> Iterator[Kind]:
    for dtype in ["bool", "int64", "uint8", "float64", "object", "boolean", "Int64", "Float64", "int64[pyarrow]"]:
        yield Kind(f"pandas {dtype}", lambda folder, dtype=dtype: pandas.Series(values).astype(dtype))
    for dtype in ["boolean", "Int64", "Float64", "int64[pyarrow]"]:
        yield Kind(
            f"pandas {dtype} with NA",
            lambda folder, dtype=dtype: _with_na({"a": values, "b": values, "c": values}, dtype)["c"],
        )
    yield Kind("pandas with other index", lambda folder: pandas.Series(values, index=range(6, 0, -1)))
    yield Kind("pandas frame of one column", lambda folder: pandas.DataFrame({"y": values}))
    yield Kind("pandas categories", lambda folder: pandas.Series(values).astype("category"))
    yield Kind("pandas text", lambda folder: pandas.Series(np.array(["no", "yes"])[values]))
    yield Kind("polars Int64", lambda folder: polars.Series(values))
    yield Kind("polars with null", lambda folder: polars.Series([None, *values[1:].tolist()]))
    yield Kind("polars text", lambda folder: polars.Series(np.array(["no", "yes"])[values].tolist()))
    yield Kind("pyarrow", lambda folder: pyarrow.chunked_array([values]))
    yield Kind("pyarrow with null", lambda folder: pyarrow.array([None, *values[1:].tolist()]))


def _bad_labels() -> Iterator[Kind]:
    yield Kind("column (n, 1)", lambda folder: LABELS[:, None])
    yield Kind("None", lambda folder: None)
    yield Kind("number", lambda folder: 1)
    yield Kind("text", lambda folder: "labels.csv")
    yield Kind("dict", lambda folder: {"y": LABELS.tolist()})
    yield Kind("set", lambda folder: {0, 1})
    yield Kind("generator", lambda folder: iter(LABELS.tolist()))
    yield Kind("empty list", lambda folder: [])
    yield Kind("a row too few", lambda folder: LABELS[:-1])
    yield Kind("three axes", lambda folder: LABELS[:, None, None])
    yield Kind("fractions", lambda folder: LABELS + 0.5)
    yield Kind("NaN", lambda folder: np.where(LABELS == 1, np.nan, 0.0))
    yield Kind("infinity", lambda folder: np.where(LABELS == 1, np.inf, 0.0))
    yield Kind("negative", lambda folder: LABELS - 1)
    yield Kind("beyond the outputs", lambda folder: LABELS + 1)
    yield Kind("beyond int32", lambda folder: np.where(LABELS == 1, 2**40, 0))
    yield Kind("array of text", lambda folder: np.array(["no", "yes"])[LABELS])
    yield Kind("list of text", lambda folder: np.array(["no", "yes"])[LABELS].tolist())
    yield Kind("text that is numbers", lambda folder: LABELS.astype(str))
    yield Kind("complex", lambda folder: LABELS.astype(complex))
    yield Kind("datetime64", lambda folder: LABELS.astype("M8[D]"))
    yield Kind("list with None", lambda folder: [None, *LABELS[1:].tolist()])
    yield Kind("ragged list", lambda folder: [[0, 1], [1]] * 3)
    yield Kind("one-hot with a column too many", lambda folder: np.eye(3)[LABELS])
    yield Kind("rows that do not sum to 1", lambda folder: np.ones((6, 2)))
