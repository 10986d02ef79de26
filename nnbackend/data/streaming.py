"""Feeds that transfer rows to the device in portions, while it works on the previous portion."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.feed import Examples, Feed
from nnbackend.data.order import Order
from nnbackend.data.rows import Rows
from nnbackend.errors import InvalidInputError
from nnbackend.support.surroundings import own_error_state

__all__ = ["Kind", "Piece", "Pieced", "PortionFeed", "Streamed"]

#: Shape and dtype of one array's entry for a row.
Kind = tuple[tuple[int, ...], np.dtype[Any]]
#: Rows, targets and, if given, weights: a piece of an epoch.
Piece = list[HostArray]

#: Approximate size of a portion: large enough for copies at full speed, small compared with any memory.
_PORTION_BYTES = 32 << 20


class PortionFeed(Feed):
    """A feed whose rows take turns in a device buffer of two portions.

    Parameters
    ----------
    backend : Backend
    count : int
        Rows of an epoch that sees all rows once.
    batch_size : int
    scale : float
        Factor the gather applies to the rows.
    kinds : sequence of (shape, dtype)
        Of a row, a target and, if given, a weight; the shape of a number is ().
    """

    def __init__(self, backend: Backend, count: int, batch_size: int, scale: float, kinds: Sequence[Kind]) -> None:
        self.count, self.portion_batch = count, batch_size
        row_shape, row_dtype = kinds[0]
        steps = -(-count // batch_size)
        wanted = _PORTION_BYTES // (batch_size * math.prod(row_shape) * row_dtype.itemsize)
        #: Steps of a portion. Two portions take no more memory than all rows.
        self._steps = max(1, min(wanted, -(-steps // 2)))
        self._portion = self._steps * batch_size
        self._lanes = [_Lane(backend, (self._portion, *shape), dtype) for shape, dtype in kinds]
        x, y, *weights = (lane.buffer for lane in self._lanes)
        self.examples = Examples(
            x=x,
            targets=y,
            target_dtype=kinds[1][1],
            weights=weights[0] if weights else None,
            count=2 * self._portion,
            scale=scale,
        )
        self._order: Order = np.empty(0, np.int64)
        self._sent = -1
        self._filling: Future[None] | None = None
        self._worker = ThreadPoolExecutor(1, "nnbackend-rows")

    def places(self, order: Order) -> Order:
        return np.arange(len(order), dtype=np.int64) % (2 * self._portion)

    def begin(self, order: Order, epoch: int, step: int = 0) -> None:
        self._halt()
        first = step // self._steps
        self._order, self._sent = order, first - 1
        if first * self._portion < len(order):
            self._fill(first)

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

    def _halt(self) -> None:
        """Wait for the pending transfer of an interrupted epoch; ignore its rows and its errors."""
        if self._filling is not None:
            wait([self._filling])

    def _fill(self, portion: int) -> None:
        self._filling = self._worker.submit(self._bring, portion)

    def _bring(self, portion: int) -> None:
        start = portion * self._portion
        order = self._order[start : start + self._portion]
        self._read(order, [lane.staging.memory(portion % 2)[: len(order)] for lane in self._lanes])

    @abstractmethod
    def _read(self, order: Order, out: Sequence[HostArray]) -> None:
        """Copy a portion's rows, targets and weights, in this order, to these arrays. Runs in a separate thread."""


class Streamed(PortionFeed):
    """Rows that stay in host memory or in their file.

    Parameters
    ----------
    backend : Backend
    rows : Rows
    targets : (count,) int32 or (count, outputs) real
    weights : (count,) real or None
    scale, batch_size
        As for `PortionFeed`.
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
        self._rows = rows
        self._others = [targets] if weights is None else [targets, weights]
        kinds = [((rows.features,), rows.dtype), *((values.shape[1:], values.dtype) for values in self._others)]
        super().__init__(backend, rows.count, batch_size, scale, kinds)

    def _read(self, order: Order, out: Sequence[HostArray]) -> None:
        with own_error_state():
            self._rows.read(order, out[0])
        for values, wanted in zip(self._others, out[1:], strict=True):
            np.take(values, order, axis=0, out=wanted, mode="clip")


class Pieced(PortionFeed):
    """Rows of a BatchStream.

    Parameters
    ----------
    backend : Backend
    stream : BatchStream
    check : callable
        Called with the contents of a piece; returns rows, targets and weights (if given) for the device. Raises
        InvalidInputError.
    scale : callable
        Called after the first piece was checked; returns the factor the gather applies.
    batch_size : int

    Attributes
    ----------
    first : tuple
        What `check` returned for the first piece.

    Raises
    ------
    InvalidInputError
        There is no first piece, or `fit` does not accept it.
    """

    def __init__(
        self,
        backend: Backend,
        stream: BatchStream,
        check: Callable[..., Piece],
        scale: Callable[[], float],
        batch_size: int,
    ) -> None:
        self.streams = True
        self._stream, self._check = stream, check
        self._pieces: Iterator[Piece] = iter(())
        self._rest: Piece = []
        self._taken = self._past = 0
        self._kinds: list[Kind] = []
        first = next(self._checked(0), None)
        if first is None:
            raise InvalidInputError(f"{stream!r} gives no piece; it must give an iterable of (x, y)")
        self._kinds = [_kind(values) for values in first]
        super().__init__(backend, stream.rows, batch_size, scale(), self._kinds)

    def places(self, order: Order) -> Order:
        """Rows are mixed within each portion, in the way the order mixes all rows."""
        found = super().places(order)
        for start in range(0, len(order), self._portion):
            part = slice(start, start + self._portion)
            found[part] = found[start] + np.argsort(order[part], kind="stable")
        return found

    def begin(self, order: Order, epoch: int, step: int = 0) -> None:
        self._halt()
        self._pieces, self._rest, self._taken = self._checked(epoch), [], 0
        self.weight_total = None if self.examples.weights is None else 0.0
        #: Rows of portions that were trained on before the run was resumed.
        self._past = step // self._steps * self._portion
        super().begin(order, epoch, step)

    def _read(self, order: Order, out: Sequence[HostArray]) -> None:
        while self._taken < self._past:
            self._take(self._past - self._taken)
        done = 0
        while done < len(order):
            taken = self._take(len(order) - done)
            now = len(taken[0])
            for values, wanted in zip(taken, out, strict=True):
                wanted[done : done + now] = values
            done += now
        if self.weight_total is not None:
            self.weight_total += float(out[2].sum(dtype=np.float64))

    def _take(self, most: int) -> Piece:
        """The next rows, at most `most`."""
        if not self._rest or not len(self._rest[0]):
            piece = next(self._pieces, None)
            if piece is None:
                raise InvalidInputError(
                    f"the stream ended after {self._taken:,} of the {self.count:,} rows it was said to have"
                )
            self._rest = piece
        taken = [values[:most] for values in self._rest]
        self._rest = [values[most:] for values in self._rest]
        self._taken += len(taken[0])
        return taken

    def _checked(self, epoch: int) -> Iterator[Piece]:
        pieces = self._stream.pieces(epoch)
        # A class with only __getitem__ is an iterable, too.
        if not hasattr(pieces, "__iter__") and not hasattr(pieces, "__getitem__"):
            raise InvalidInputError(
                f"the pieces of {self._stream!r} must be an iterable of (x, y), received {type(pieces).__name__} for "
                f"epoch {epoch}; yield the pieces, or return a list of them"
            )
        for number, given in enumerate(pieces, start=1):
            try:
                if not isinstance(given, tuple | list) or len(given) not in (2, 3):
                    received = type(given).__name__
                    raise InvalidInputError(f"it must be (x, y) or (x, y, sample_weight), received {received}")
                with own_error_state():
                    piece = self._check(*given)
                kinds = [_kind(values) for values in piece]
                if self._kinds and kinds != self._kinds:
                    raise InvalidInputError(
                        f"it must be like the first one, {_words(self._kinds)}, received {_words(kinds)}"
                    )
            except InvalidInputError as error:
                raise InvalidInputError(f"piece {number} of the stream: {error}") from None
            yield piece


def _kind(values: HostArray) -> Kind:
    return values.shape[1:], values.dtype


def _words(kinds: Sequence[Kind]) -> str:
    names = ("rows", "targets", "weights")
    return ", ".join(f"{name} of shape {shape} {dtype}" for name, (shape, dtype) in zip(names, kinds, strict=False))


class _Lane:
    """Transfers one array's portions to the device.

    Parameters
    ----------
    backend : Backend
    shape : tuple of int
        Of a portion.
    dtype : numpy dtype

    Attributes
    ----------
    buffer : device array
        Two portions, one after the other.
    staging : Staging
        Fills them.
    """

    def __init__(self, backend: Backend, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = math.prod(shape)
        flat: Array = backend.empty((2 * size,), dtype)
        self.buffer: Array = backend.view(flat, 0, (2 * shape[0], *shape[1:]))
        self.staging = backend.staging((backend.view(flat, 0, shape), backend.view(flat, size, shape)), shape, dtype)
