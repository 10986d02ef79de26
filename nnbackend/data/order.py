"""In which order an epoch takes the rows, and that order's way to the device."""

from __future__ import annotations

import numpy as np

from nnbackend.backends.contract import Array, Backend
from nnbackend.data.feeds import Order

__all__ = ["OrderPrefetch", "epoch_order"]

#: Separates the stream of batch orders from the other uses of a network's seed.
_ORDER_STREAM = 1


def epoch_order(seed: int, epoch: int, count: int, length: int | None = None, shuffle: bool = True) -> Order:
    """The order of the rows in an epoch: a function of its arguments alone, so resuming needs no generator state.

    Passes over all rows follow each other without end, each shuffled anew, and an epoch is the next `length` rows of
    them.

    Parameters
    ----------
    seed : int
        The network's.
    epoch : int
        From 0.
    count : int
        How many rows there are.
    length : int, optional
        How many rows an epoch sees; all of them once if not given.
    shuffle : bool
        False for the rows as they come.
    """
    length = count if length is None else length
    begin = epoch * length
    if not shuffle:
        return np.arange(begin, begin + length, dtype=np.int64) % count
    first, start = divmod(begin, count)
    passes = range(first, first + -(-(start + length) // count))
    return np.concatenate([_permutation(seed, number, count) for number in passes])[start : start + length]


def _permutation(seed: int, number: int, count: int) -> Order:
    generator = np.random.Generator(np.random.Philox(key=[seed, (_ORDER_STREAM << 32) + number]))
    return generator.permutation(count)


class OrderPrefetch:
    """Brings the coming epoch's order to the device while it is at work on this one's.

    Drawing the order of many rows and copying it takes as long as a GPU takes for a good part of an epoch.

    Parameters
    ----------
    backend : Backend
    rows : int
        That an epoch sees.

    Attributes
    ----------
    epoch : int
        The one whose order is there; -1 if none is.
    """

    def __init__(self, backend: Backend, rows: int) -> None:
        self.epoch = -1
        self._backend = backend
        self._half = 0
        self._halves = (backend.empty((rows,), np.int64), backend.empty((rows,), np.int64))
        self._staging = backend.staging(self._halves, (rows,), np.int64)
        self._order: Order = np.empty(0, np.int64)

    def send(self, epoch: int, order: Order, places: Order) -> None:
        """Bring an epoch's order, and where its rows will be."""
        self.epoch, self._order = epoch, order
        self._half = 1 - self._half
        self._staging.memory(self._half)[...] = places
        self._staging.send(self._half)

    def take(self, out: Array) -> Order:
        """The epoch's order; where its rows are goes to `out`, on the device."""
        self.epoch = -1
        self._backend.copy(self._halves[self._half], out)
        return self._order
