"""Rows that are brought to the device portion by portion, while it works on the portion before."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import numpy as np

from nnbackend.backends.base import Array, Backend, HostArray
from nnbackend.feeds import Feed, Order
from nnbackend.rows import Rows
from nnbackend.step import Examples

__all__ = ["Streamed"]

#: About how much is brought at a time: enough that a copy runs at full speed, little enough to be nowhere in the way.
_PORTION_BYTES = 32 << 20


class Streamed(Feed):
    """Rows stay on the host, or in their file, and take turns in a device buffer of two portions.

    Parameters
    ----------
    backend : Backend
    rows : Rows
    targets : (count,) int32 or (count, outputs) real
    weights : (count,) real or None
    scale : float
        Factor the gather applies to the rows.
    batch_size : int
    """

    def __init__(
        self,
        backend: Backend,
        rows: Rows,
        targets: HostArray,
        weights: HostArray | None,
        scale: float,
        batch_size: int,
    ) -> None:
        self.count = rows.count
        steps = -(-rows.count // batch_size)
        wanted = _PORTION_BYTES // (rows.nbytes // rows.count * batch_size)
        #: Steps a portion; two portions take no more than all rows would.
        self._steps = max(1, min(wanted, -(-steps // 2)))
        self._portion = self._steps * batch_size
        self._lanes = [_Lane(backend, rows.read, (self._portion, rows.features), rows.dtype)]
        for values in (targets, weights):
            if values is not None:
                shape = (self._portion, *values.shape[1:])
                self._lanes.append(_Lane(backend, partial(_take, values), shape, values.dtype))
        x, y, *weighted = (lane.buffer for lane in self._lanes)
        self.examples = Examples(
            x=x,
            targets=y,
            target_dtype=targets.dtype,
            weights=weighted[0] if weighted else None,
            count=2 * self._portion,
            scale=scale,
        )
        self._order: Order = np.empty(0, np.int64)
        self._sent = -1
        self._filling: Future[None] | None = None
        self._worker = ThreadPoolExecutor(1, "nnbackend-rows")

    def places(self, order: Order) -> Order:
        return np.arange(len(order), dtype=np.int64) % (2 * self._portion)

    def begin(self, order: Order) -> None:
        if self._filling is not None:
            # An epoch that was cut short: what was on its way is of no use, nor is what went wrong with it.
            wait([self._filling])
        self._order, self._sent = order, -1
        self._fill(0)

    def ready(self, step: int) -> int:
        portion, done = divmod(step, self._steps)
        if portion > self._sent:
            assert self._filling is not None, "begin comes first"
            filling, self._filling = self._filling, None
            filling.result()
            for lane in self._lanes:
                lane.staging.send(portion % 2)
            self._sent = portion
            if (portion + 1) * self._portion < len(self._order):
                self._fill(portion + 1)
        return self._steps - done

    def close(self) -> None:
        self._worker.shutdown()

    def _fill(self, portion: int) -> None:
        self._filling = self._worker.submit(self._bring, portion)

    def _bring(self, portion: int) -> None:
        start = portion * self._portion
        order = self._order[start : start + self._portion]
        for lane in self._lanes:
            lane.read(order, lane.staging.memory(portion % 2)[: len(order)])


class _Lane:
    """One array's way to the device.

    Parameters
    ----------
    backend : Backend
    read : callable
        Called as ``read(order, out)``: brings the rows with these numbers.
    shape : tuple of int
        Of a portion.
    dtype : numpy dtype

    Attributes
    ----------
    buffer : device array
        Of two portions, one after the other.
    staging : Staging
        The way into them.
    """

    def __init__(
        self, backend: Backend, read: Callable[[Order, HostArray], None], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.read = read
        size = math.prod(shape)
        flat: Array = backend.empty((2 * size,), dtype)
        self.buffer: Array = backend.view(flat, 0, (2 * shape[0], *shape[1:]))
        self.staging = backend.staging((backend.view(flat, 0, shape), backend.view(flat, size, shape)), shape, dtype)


def _take(values: HostArray, order: Order, out: HostArray) -> None:
    np.take(values, order, axis=0, out=out, mode="clip")
