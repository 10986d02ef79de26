"""Checks a caller's data and makes a feed of them."""

from __future__ import annotations

import math
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
from nnbackend.data.shared import SelectedRows, SelectedTargets
from nnbackend.data.stored import is_stored
from nnbackend.data.targets import Targets
from nnbackend.data.weights import Exchange, class_weights, combine_weights, only_here, row_weights
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss

__all__ = ["Intake", "make_feed"]

#: Files up to this size are read into the memory of the device if they fit there.
_RESIDENT_BYTES = 1 << 30

#: Fraction of a device's free memory that the rows may take; the network and its buffers need memory, too.
_RESIDENT_SHARE = 0.8


@dataclass(eq=False, repr=False)
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
    multilabel : bool
        Whether the network predicts several labels for each row.
    """

    backend: Backend
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: InputScale
    trained_with: Inputs | None = None
    multilabel: bool = False

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
        if self.scale.factor is None and rows.received == np.uint8:
            extent = rows.extent()
            self.scale.warn_if_undecided(rows.received, rows.images, extent and extent[1])
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
        exchange: Exchange = only_here,
        training: bool = False,
    ) -> Feed:
        """Check data and make a feed of them.

        Parameters
        ----------
        x, y, loss, batch_size, sample_weight
            As for `Network.fit`.
        class_weight : dict, (classes,) array_like or "balanced"
            A stream takes only an array.
        stream : bool, optional
            As for :func:`make_feed`.
        exchange : callable
            As for :func:`nnbackend.data.weights.combine_weights`.
        training : bool
            Whether the network is trained on these rows, which then decide what it predicts.

        Raises
        ------
        InvalidInputError
            The data do not fit the network or the loss; nothing was changed.
        """
        if isinstance(x, BatchStream):
            others = (("y", y), ("sample_weight", sample_weight), ("class_weight", class_weight if training else None))
            for name, value in others:
                if value is not None:
                    raise InvalidInputError(f"a BatchStream brings all that belongs to a row; leave {name} out")
            return self._pieces(x, loss, batch_size, class_weight)
        if y is None:
            raise InvalidInputError("y is missing: give one target for each row of x, or both in a BatchStream")
        rows = self.rows(x)
        targets = self._targets(y, rows.count, loss, training)
        if class_weight is not None:
            class_weight = class_weights(class_weight, targets, self._outputs, exchange)
        weights = combine_weights(targets, sample_weight, class_weight, self._outputs, self.dtype, exchange)
        feed = make_feed(self.backend, rows, targets.values, weights, rows.scale, batch_size, stream)
        feed.take(targets, loss)
        feed.targets = targets
        feed.sample_weight = None if sample_weight is None else row_weights(sample_weight, rows.count)
        feed.inputs, feed.row_dtype = partial(rows.describe, self.scale, targets.describe(self._outputs)), rows.dtype
        feed.class_weights, feed.weighted = class_weight, weights is not None and not np.allclose(weights, 1, rtol=1e-5)
        return feed

    def batch(self, x: Any, y: Any, loss: Loss, sample_weight: Any) -> tuple[HostArray, Targets, HostArray | None]:
        """Checked rows, targets and weights for the device, on the host; raises as `feed` does."""
        rows = self.rows(x).array()
        targets = self._targets(y, len(rows), loss, training=True)
        return rows, targets, combine_weights(targets, sample_weight, None, self._outputs, self.dtype)

    def _pieces(self, stream: BatchStream, loss: Loss, batch_size: int, class_weight: HostArray | None) -> Feed:
        # Imported here because it needs threads, which a run without streaming does not.
        from nnbackend.data.streaming import Pieced

        first: list[tuple[Rows, Targets]] = []

        def check(x: Any, y: Any, sample_weight: Any = None) -> list[HostArray]:
            # The first piece decides the factor for all.
            rows = (self.fixed(first[0][0].scale) if first else self).rows(x)
            targets = self._targets(y, rows.count, loss)
            first[:] = first or [(rows, targets)]
            if targets.kind == "multilabel" and first[0][1].kind != "multilabel":
                _check_counted(feeds[0])
            factors = [] if sample_weight is None else [row_weights(sample_weight, rows.count)]
            if class_weight is not None:
                factors.append(class_weights(class_weight, targets, self._outputs)[targets.labels])
            if not factors:
                return [rows.array(), targets.values]
            return [rows.array(), targets.values, self._as_given(np.prod(factors, axis=0))]

        feeds: list[Feed] = []
        feed = Pieced(self.backend, stream, check, lambda: first[0][0].scale, min(batch_size, stream.rows))
        feeds.append(feed)
        rows, targets = first[0]
        inputs = rows.describe(self.scale, targets.describe(self._outputs))
        feed.take(targets, loss)
        feed.inputs, feed.row_dtype = lambda: inputs, rows.dtype
        feed.weighted = feed.examples.weights is not None
        return feed

    def _as_given(self, weights: HostArray) -> HostArray:
        """Weights that are used as they are, in the network's dtype."""
        if weights.max() > np.finfo(self.dtype).max:
            raise InvalidInputError(
                f"sample_weight holds {weights.max():g}, beyond the range of {self.dtype}; only the ratios of weights "
                "matter, so divide them by their largest value"
            )
        return weights.astype(self.dtype)

    def _targets(self, y: Any, rows: int, loss: Loss, training: bool = False) -> Targets:
        if is_stored(y) and y.shape and y.shape[0] != rows:
            # Before they are read.
            raise InvalidInputError(f"x has {rows} rows but y has {y.shape[0]}; give one target for each row")
        if isinstance(y, SelectedTargets):
            return y.prepare(loss, self._outputs, self.dtype, self.multilabel and not (training and y.ndim == 1))
        values = as_host_array("y", y)
        # Class indices in training make a network that predicts classes, whatever it predicted before.
        multilabel = self.multilabel and not (training and values.ndim == 1)
        return Targets.prepare(loss, values, rows, self._outputs, self.dtype, multilabel)

    @property
    def _outputs(self) -> int:
        return math.prod(self.output_shape)


def _check_counted(feed: Feed) -> None:
    """Reject rows with several labels in a stream whose first rows had one each, unless it is known by now."""
    if feed.kind != "multilabel":
        raise InvalidInputError(
            "its rows have several labels or none, but those of the first piece have one each, and were taken for "
            "classes; set network.multilabel = True before training"
        )


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
    if isinstance(rows, SelectedRows):
        return rows.feed(backend, targets, weights, scale)
    if stream is None:
        stream = not rows.dense or _too_large(backend, rows, targets)
    if stream:
        from nnbackend.data.streaming import Streamed

        return Streamed(backend, rows, targets, weights, scale, min(batch_size, rows.count))
    return Resident(Examples.on_device(backend, rows.array(), targets, weights, scale, shared=True))


def _too_large(backend: Backend, rows: Rows, targets: HostArray) -> bool:
    if rows.stored and rows.nbytes > _RESIDENT_BYTES:
        return True
    free = backend.free_bytes()
    return free is not None and rows.nbytes + targets.nbytes > _RESIDENT_SHARE * free
