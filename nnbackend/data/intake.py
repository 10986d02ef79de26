"""Checks a caller's data and makes a feed of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.feed import Examples, Feed, Resident
from nnbackend.data.inputs import as_host_array
from nnbackend.data.rows import Rows, as_rows
from nnbackend.data.scale import Inputs, InputScale
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
    scale : InputScale
        Determines the factor on the inputs.
    trained_with : Inputs or None
        The inputs of the network's training.
    """

    backend: Backend
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: InputScale
    trained_with: Inputs | None = None

    def rows(self, x: Any) -> Rows:
        """The rows of `x`, checked, with the factor on them.

        Raises
        ------
        InvalidInputError
            See :func:`nnbackend.data.rows.as_rows`; or the products with the factor overflow.
        """
        rows = as_rows(x, self.input_shape, self.dtype)
        if not math.isnan(rows.scale):
            return rows
        rows.choose_scale(self.scale, self.dtype)
        self.scale.warn_if_undecided(rows.received, rows.images)
        trained_with = self.trained_with
        if (
            trained_with is not None
            and trained_with.other_kind(rows.received)
            and (extent := rows.extent()) is not None
        ):
            trained_with.warn_if_other_units(rows.received, extent[1], rows.scale)
        return rows

    def fixed(self, factor: float, trained_with: Inputs | None = None) -> Intake:
        """The same for a network whose factor is decided, by training with these inputs."""
        return replace(self, scale=replace(self.scale, factor=factor), trained_with=trained_with or self.trained_with)

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
        rows = self.rows(x)
        targets = self._targets(y, rows.count, loss)
        weights = combine_weights(targets, sample_weight, class_weight, self._outputs, self.dtype, mean_weight)
        feed = make_feed(self.backend, rows, targets.values, weights, rows.scale, batch_size, stream)
        feed.accuracy_name = targets.accuracy_name
        feed.inputs = partial(rows.describe, self.scale, targets.describe(self._outputs))
        feed.largest_target, feed.row_dtype = targets.largest, rows.dtype
        return feed

    def batch(self, x: Any, y: Any, loss: Loss, sample_weight: Any) -> tuple[HostArray, Targets, HostArray | None]:
        """Checked rows, targets and weights for the device, on the host; raises as `feed` does."""
        rows = self.rows(x).array()
        targets = self._targets(y, len(rows), loss)
        return rows, targets, combine_weights(targets, sample_weight, None, self._outputs, self.dtype)

    def _pieces(self, stream: BatchStream, loss: Loss, batch_size: int) -> Feed:
        # Imported here because it needs threads, which a run without streaming does not.
        from nnbackend.data.streaming import Pieced

        first: list[tuple[Rows, Targets]] = []

        def check(x: Any, y: Any, sample_weight: Any = None) -> list[HostArray]:
            # The first piece decides the factor for all.
            rows = (self.fixed(first[0][0].scale) if first else self).rows(x)
            targets = self._targets(y, rows.count, loss)
            first[:] = first or [(rows, targets)]
            if sample_weight is None:
                return [rows.array(), targets.values]
            return [rows.array(), targets.values, row_weights(sample_weight, rows.count).astype(self.dtype)]

        feed = Pieced(self.backend, stream, check, lambda: first[0][0].scale, min(batch_size, stream.rows))
        rows, targets = first[0]
        feed.accuracy_name = targets.accuracy_name
        inputs = rows.describe(self.scale, targets.describe(self._outputs))
        feed.largest_target, feed.row_dtype = targets.largest, rows.dtype
        feed.inputs = lambda: inputs
        return feed

    def _targets(self, y: Any, rows: int, loss: Loss) -> Targets:
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
        stream = not rows.dense or _too_large(backend, rows, targets)
    if stream:
        from nnbackend.data.streaming import Streamed

        return Streamed(backend, rows, targets, weights, scale, min(batch_size, rows.count))
    return Resident(Examples.on_device(backend, rows.array(), targets, weights, scale))


def _too_large(backend: Backend, rows: Rows, targets: HostArray) -> bool:
    if rows.stored and rows.nbytes > _RESIDENT_BYTES:
        return True
    free = backend.free_bytes()
    return free is not None and rows.nbytes + targets.nbytes > _RESIDENT_SHARE * free
