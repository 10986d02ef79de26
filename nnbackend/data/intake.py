"""Checks a caller's data and makes a feed of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.feed import Examples, Feed, Resident
from nnbackend.data.inputs import as_host_array, check_features, input_scale_of
from nnbackend.data.rows import Rows, as_rows
from nnbackend.data.stored import is_stored
from nnbackend.data.targets import Targets, combine_weights, row_weights
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss

__all__ = ["Intake", "make_feed"]

#: Files up to this size are read into the memory of the device if they fit there.
_RESIDENT_BYTES = 1 << 30

#: Fraction of a device's free memory that the rows may take; the network and its buffers need memory, too.
_RESIDENT_SHARE = 0.8


@dataclass(frozen=True, eq=False)
class Intake:
    """Checks data for one network and makes feeds of them.

    Attributes
    ----------
    backend : Backend
    input_shape, output_shape : tuple of int
        Of a sample.
    dtype : numpy dtype
    input_scale : float or None
        Factor on the inputs; None for 1/255 on bytes and 1 otherwise.
    """

    backend: Backend
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    input_scale: float | None

    def feed(
        self,
        x: Any,
        y: Any,
        loss: Loss,
        batch_size: int,
        *,
        sample_weight: Any = None,
        class_weight: Any = None,
        stream: bool | None = None,
        mean_weight: Callable[[HostArray], float] = np.mean,
    ) -> Feed:
        """Check data and make a feed of them; see :func:`make_feed` for `stream` and
        :func:`nnbackend.data.targets.combine_weights` for `mean_weight`.

        Raises
        ------
        InvalidInputError
            The data do not fit the network or the loss; nothing was changed.
        """
        if isinstance(x, BatchStream):
            others = (("y", y), ("sample_weight", sample_weight), ("class_weight", class_weight))
            for name, value in others:
                if value is not None:
                    raise InvalidInputError(f"a BatchStream brings all that belongs to a row; leave {name} out")
            return self._pieces(x, loss, batch_size)
        if y is None:
            raise InvalidInputError("y is missing: give one target for each row of x, or both in a BatchStream")
        rows = as_rows(x, self.input_shape, self.dtype)
        targets = self._targets(y, rows.count, loss)
        weights = combine_weights(targets, sample_weight, class_weight, self._outputs, self.dtype, mean_weight)
        scale = input_scale_of(rows.dtype, self.input_scale)
        feed = make_feed(self.backend, rows, targets.values, weights, scale, batch_size, stream)
        feed.accuracy_name = targets.accuracy_name
        return feed

    def batch(self, x: Any, y: Any, loss: Loss, sample_weight: Any) -> tuple[HostArray, Targets, HostArray | None]:
        """Checked rows, targets and weights for the device, on the host; raises as `feed` does."""
        rows = check_features(x, self.input_shape, self.dtype)
        targets = self._targets(y, len(rows), loss)
        return rows, targets, combine_weights(targets, sample_weight, None, self._outputs, self.dtype)

    def _pieces(self, stream: BatchStream, loss: Loss, batch_size: int) -> Feed:
        # Imported here because it needs threads, which a run without streaming does not.
        from nnbackend.data.streaming import Pieced

        names: list[str | None] = []

        def check(x: Any, y: Any, sample_weight: Any = None) -> list[HostArray]:
            rows = check_features(x, self.input_shape, self.dtype)
            targets = self._targets(y, len(rows), loss)
            names[:] = names or [targets.accuracy_name]
            if sample_weight is None:
                return [rows, targets.values]
            return [rows, targets.values, row_weights(sample_weight, len(rows)).astype(self.dtype)]

        def scale(dtype: np.dtype[Any]) -> float:
            return input_scale_of(dtype, self.input_scale)

        feed = Pieced(self.backend, stream, check, scale, min(batch_size, stream.rows))
        feed.accuracy_name = names[0]
        return feed

    def _targets(self, y: Any, rows: int, loss: Loss) -> Targets:
        if is_stored(y) and y.shape and y.shape[0] != rows:
            # Before they are read.
            raise InvalidInputError(f"x has {rows} rows but y has {y.shape[0]}; give one target for each row")
        return Targets.prepare(loss, as_host_array("y", y), rows, self._outputs, self.dtype)

    @property
    def _outputs(self) -> int:
        return math.prod(self.output_shape)


def make_feed(
    backend: Backend,
    rows: Rows,
    targets: HostArray,
    weights: HostArray | None,
    scale: float,
    batch_size: int,
    stream: bool | None = None,
) -> Feed:
    """A feed of checked rows, either all on the device or streamed in portions.

    Parameters
    ----------
    stream : bool, optional
        Whether to stream them. Default: only if they do not fit into the device's memory, or are in a file of more than
        a gigabyte.
    """
    if stream is None:
        stream = _too_large(backend, rows, targets)
    if stream:
        from nnbackend.data.streaming import Streamed

        return Streamed(backend, rows, targets, weights, scale, min(batch_size, rows.count))
    return Resident(Examples.on_device(backend, rows.array(), targets, weights, scale))


def _too_large(backend: Backend, rows: Rows, targets: HostArray) -> bool:
    if rows.stored and rows.nbytes > _RESIDENT_BYTES:
        return True
    free = backend.free_bytes()
    return free is not None and rows.nbytes + targets.nbytes > _RESIDENT_SHARE * free
