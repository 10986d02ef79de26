"""The order of the rows in an epoch, and its transfer to the device."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Backend

__all__ = ["Order", "OrderPrefetch", "epoch_order"]

#: Order of the rows in an epoch, or part of it.
Order = npt.NDArray[np.int64]

#: Separates the stream of batch orders from the other uses of a network's seed.
_ORDER_STREAM = 1


def epoch_order(seed: int, epoch: int, count: int, length: int | None = None, shuffle: bool = True) -> Order:
    """The order of the rows in an epoch: a pure function of its arguments, so resuming needs no generator state.

    An epoch consists of the next `length` rows of an endless sequence of passes over all rows, each with its own
    permutation.

    Parameters
    ----------
    seed : int
        The network's.
    epoch : int
        From 0.
    count : int
        Number of rows.
    length : int, optional
        Rows of an epoch; `count` if not given.
    shuffle : bool
        False keeps the original order.
    """
    length = count if length is None else length
    begin = epoch * length
    if not shuffle:
        return np.arange(begin, begin + length, dtype=np.int64) % count
    first, start = divmod(begin, count)
    passes = range(first, first + -(-(start + length) // count))
    orders = [_permutation(seed, number, count) for number in passes]
    return orders[0] if length == count and not start else np.concatenate(orders)[start : start + length]


class _Generators(threading.local):
    """A generator for each thread: for short epochs, making one takes longer than drawing the order."""

    def __init__(self) -> None:
        self._philox: np.random.Philox | None = None

    def with_key(self, *key: int) -> np.random.Generator:
        """The generator in the state of a new one with this key."""
        if self._philox is None:
            # Not before, because NumPy loads its generators when they are first used.
            self._philox = np.random.Philox(0)
            self._generator = np.random.Generator(self._philox)
            self._state: Any = self._philox.state
        state = {"counter": np.zeros(4, np.uint64), "key": np.array(key, np.uint64)}
        self._state["state"] = state
        self._philox.state = self._state
        return self._generator


_generators = _Generators()


def _permutation(seed: int, number: int, count: int) -> Order:
    return _generators.with_key(seed, (_ORDER_STREAM << 32) + number).permutation(count)


class OrderPrefetch:
    """Transfers the next epoch's order to the device while the device works on this epoch.

    For many rows, drawing and copying the order takes a considerable part of the time of an epoch on a GPU.

    Parameters
    ----------
    backend : Backend
    rows : int
        Of an epoch.

    Attributes
    ----------
    epoch : int
        The epoch whose order was sent; -1 if there is none.
    """

    def __init__(self, backend: Backend, rows: int) -> None:
        self.epoch = -1
        self._backend = backend
        self._half = 0
        self._halves = (backend.empty((rows,), np.int64), backend.empty((rows,), np.int64))
        self._staging = backend.staging(self._halves, (rows,), np.int64)
        self._order: Order = np.empty(0, np.int64)

    def send(self, epoch: int, order: Order, places: Order) -> None:
        """Send an epoch's order, as positions of the rows on the device."""
        self.epoch, self._order = epoch, order
        self._half = 1 - self._half
        self._staging.memory(self._half)[...] = places
        self._staging.send(self._half)

    def take(self, out: Array) -> Order:
        """The epoch's order; the positions of its rows are copied to `out`, on the device."""
        self.epoch = -1
        self._backend.copy(self._halves[self._half], out)
        return self._order
