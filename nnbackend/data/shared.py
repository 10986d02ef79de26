"""Data that several networks share: each trains on some of the rows, and all rows are on the device once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.data.feed import Examples, Resident
from nnbackend.data.inputs import as_host_array
from nnbackend.data.order import Order
from nnbackend.data.rows import Rows, as_rows
from nnbackend.data.targets import Targets
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss
from nnbackend.support.fork_lock import cached_property

__all__ = ["OnDevice", "SelectedRows", "SelectedTargets", "Selection", "SharedData"]

RowNumbers = npt.NDArray[np.int64]


class Selection:
    """The rows of one or several networks, by number.

    Parameters
    ----------
    numbers : (n,) int64, optional
        May repeat rows. Default: all rows, in order.
    """

    def __init__(self, numbers: RowNumbers | None = None) -> None:
        self.numbers = numbers

    def of(self, values: HostArray) -> HostArray:
        """These rows of an array."""
        selected: HostArray = values if self.numbers is None else values[self.numbers]
        return selected

    def spread(self, values: HostArray, count: int) -> HostArray:
        """An array of `count` rows, in which these rows have the given values."""
        if self.numbers is None:
            return values
        whole = np.zeros((count, *values.shape[1:]), values.dtype)
        whole[self.numbers] = values
        return whole


class SharedData:
    """The rows and targets of several networks.

    Parameters
    ----------
    x, y
        As for `Network.fit`, but no stream.

    Attributes
    ----------
    y : array
        As given, on the host.
    everything : Selection
        All rows.
    """

    def __init__(self, x: Any, y: Any) -> None:
        self._x = x
        self.y = as_host_array("y", y)
        self._tables: dict[Hashable, _Table] = {}
        self.everything = Selection()
        self._selections: dict[bytes, Selection] = {}
        self._targets: dict[Hashable, Targets] = {}
        self._on_device = OnDevice()

    @property
    def count(self) -> int:
        """Number of all rows."""
        return len(self.y) if self.y.ndim else 0

    def rows(
        self, selection: Selection, input_shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[SelectedRows, SelectedTargets]:
        """Rows and targets of one network, which `Network.fit` takes as `x` and `y`.

        Raises
        ------
        InvalidInputError, DataError
            As for :func:`nnbackend.data.rows.as_rows`; or the rows are sparse, or there is another number of targets.
        """
        key = input_shape, dtype
        if key not in self._tables:
            rows = as_rows(self._x, input_shape, dtype)
            if not rows.dense:
                raise InvalidInputError(
                    "x is a sparse matrix, but networks that train together share rows on the device; give "
                    "x.toarray(), or train the networks one after the other with fit"
                )
            if self.y.ndim and len(self.y) != rows.count:
                raise InvalidInputError(
                    f"x has {rows.count} rows but y has {len(self.y)}; give one target for each row"
                )
            known = (table for table in self._tables.values() if table.array is rows.array())
            self._tables[key] = next(known, None) or _Table(rows, self._on_device)
        table = self._tables[key]
        return SelectedRows(table, selection), SelectedTargets(self, selection)

    def selection(self, name: str, numbers: Any) -> Selection:
        """Checked row numbers; the same object for the same rows.

        Parameters
        ----------
        name : str
            In error messages.
        numbers : (m,) array_like of int, (n,) array_like of bool, or None
            For n rows; None stands for all.

        Raises
        ------
        InvalidInputError
            They are no row numbers, out of range, or none.
        """
        if numbers is None:
            return self.everything
        checked = _row_numbers(name, numbers, self.count)
        return self._selections.setdefault(checked.tobytes(), Selection(checked))

    def targets(self, selection: Selection, loss: Loss, *others: Any) -> Targets:
        """The targets of a selection; `others` are the last arguments of :meth:`Targets.prepare`, which may raise."""
        key = selection, loss, *others
        if key not in self._targets:
            values = selection.of(self.y)
            self._targets[key] = found = Targets.prepare(loss, values, len(values), *others)
            if selection is not self.everything:
                self._on_device.keep(found.values, self._whole(selection, found.values, loss, *others))
        return self._targets[key]

    def _whole(self, selection: Selection, values: HostArray, loss: Loss, *others: Any) -> HostArray:
        """Targets for all rows that are `values` for those of the selection, the same for as many as possible."""
        try:
            everything = self.targets(self.everything, loss, *others).values
        except InvalidInputError:
            # Other rows may have targets that are wrong for this loss.
            everything = values[:0]
        if everything.dtype == values.dtype and len(everything) and np.array_equal(selection.of(everything), values):
            return everything
        return selection.spread(values, len(self.y))


class OnDevice:
    """Arrays for all rows on the device, each of them once."""

    def __init__(self) -> None:
        #: By the id of an array for some of the rows, which is kept: that for all rows.
        self._whole: dict[int, tuple[HostArray, HostArray]] = {}
        self._arrays: dict[Hashable, tuple[HostArray, Array]] = {}

    def keep(self, values: HostArray, whole: HostArray) -> None:
        """Use `whole` wherever `values` are asked for."""
        self._whole[id(values)] = values, whole

    def rows(self, backend: Backend, values: HostArray) -> Array:
        """Rows or targets, which are never written to."""
        _, whole = self._whole.get(id(values), (None, values))
        return self._once(id(whole), whole, lambda: backend.asarray(whole))

    def weights(self, backend: Backend, whole: HostArray) -> Array:
        """Weights, which are computed for each network, but often equal."""
        # Imported here because it loads a library, which only a few trainings need.
        import hashlib

        digest = hashlib.blake2b(whole.tobytes(), digest_size=16).digest()
        return self._once((whole.dtype, digest), whole, lambda: backend.from_host(whole))

    def _once(self, key: Hashable, array: HostArray, send: Callable[[], Array]) -> Array:
        if key not in self._arrays:
            self._arrays[key] = array, send()
        return self._arrays[key][1]


class _Table:
    """All rows, in memory.

    Attributes
    ----------
    array : (n, features) array
    received : numpy dtype
    images : bool
    results : dict
    """

    def __init__(self, rows: Rows, on_device: OnDevice) -> None:
        self.array, self.received, self.images = rows.array(), rows.received, rows.images
        self.on_device = on_device
        self._extents: dict[Selection, tuple[float, float]] = {}
        #: By selection: results that depend on its rows alone, by name.
        self.results: dict[Selection, dict[str, str]] = {}

    @cached_property
    def _extent_of_rows(self) -> tuple[HostArray, HostArray]:
        return self.array.min(axis=1), self.array.max(axis=1)

    def extent(self, selection: Selection) -> tuple[float, float]:
        """The smallest and the largest value of some rows."""
        if selection not in self._extents:
            low, high = self._extent_of_rows
            self._extents[selection] = float(selection.of(low).min()), float(selection.of(high).max())
        return self._extents[selection]


class SelectedRows(Rows):
    """Some of the rows that networks share; only their numbers are sent to the device.

    Parameters
    ----------
    table : _Table
    selection : Selection
    """

    stored = False

    def __init__(self, table: _Table, selection: Selection) -> None:
        self._table, self._selection = table, selection
        self.features = table.array.shape[1]
        self.count = len(table.array if selection.numbers is None else selection.numbers)
        self.dtype, self.received, self.images = table.array.dtype, table.received, table.images

    def extent(self) -> tuple[float, float]:
        return self._table.extent(self._selection)

    def once(self, name: str, compute: Callable[[], str]) -> str:
        """A result that depends on these rows alone, computed for the first network that has them."""
        results = self._table.results.setdefault(self._selection, {})
        if name not in results:
            results[name] = compute()
        return results[name]

    def array(self) -> HostArray:
        return self._selection.of(self._table.array)

    def part(self, start: int, stop: int) -> HostArray:
        numbers = self._selection.numbers
        return self._table.array[start:stop] if numbers is None else self._table.array[numbers[start:stop]]

    def read(self, order: Order, out: HostArray) -> None:
        numbers = self._selection.numbers
        np.take(self._table.array, order if numbers is None else numbers[order], axis=0, out=out, mode="clip")

    def feed(self, backend: Backend, targets: HostArray, weights: HostArray | None, scale: float) -> Resident:
        """A feed of these rows, with their targets and weights."""
        table, selection = self._table, self._selection
        whole = None if weights is None else selection.spread(weights, len(table.array))
        examples = Examples(
            x=table.on_device.rows(backend, table.array),
            targets=table.on_device.rows(backend, targets),
            target_dtype=targets.dtype,
            weights=None if whole is None else table.on_device.weights(backend, whole),
            count=self.count,
            scale=scale,
        )
        return Resident(examples) if selection.numbers is None else _Selected(examples, selection.numbers)


class _Selected(Resident):
    """Some of the rows on the device."""

    def __init__(self, examples: Examples, numbers: RowNumbers) -> None:
        super().__init__(examples)
        self._numbers = numbers

    def places(self, order: Order) -> Order:
        return self._numbers[order]


class SelectedTargets:
    """The targets of some of the rows.

    Parameters
    ----------
    shared : SharedData
    selection : Selection
    """

    def __init__(self, shared: SharedData, selection: Selection) -> None:
        self._shared, self._selection = shared, selection
        self.ndim = shared.y.ndim

    def prepare(self, loss: Loss, outputs: int, dtype: np.dtype[Any], multilabel: bool) -> Targets:
        """Convert them for a loss; raises as :meth:`Targets.prepare` does."""
        return self._shared.targets(self._selection, loss, outputs, dtype, multilabel)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> HostArray:
        return np.array(self._selection.of(self._shared.y), dtype)


def _row_numbers(name: str, given: Any, count: int) -> RowNumbers:
    """Checked row numbers, from numbers or a mask."""
    numbers = as_host_array(name, given)
    if numbers.ndim != 1 or (numbers.dtype.kind not in "biu" and numbers.size):
        raise InvalidInputError(
            f"{name} must be the numbers of rows, (m,) integers, or a mask for all of them, received an array of shape "
            f"{numbers.shape} and dtype {numbers.dtype}"
        )
    if numbers.dtype.kind == "b":
        if len(numbers) != count:
            raise InvalidInputError(f"the mask in {name} has {len(numbers)} entries for {count} rows")
        numbers = np.flatnonzero(numbers)
    if not len(numbers):
        raise InvalidInputError(f"{name} is empty; give at least one row")
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= count:
        raise InvalidInputError(f"{name} must be in [0, {count}), received {low if low < 0 else high}")
    return numbers.astype(np.int64)
