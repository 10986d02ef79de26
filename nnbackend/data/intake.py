"""Checks a caller's data and makes a feed of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.feed import Examples, Feed, Resident
from nnbackend.data.inputs import as_host_array, check_features, input_scale_of
from nnbackend.data.rows import Rows, as_rows
from nnbackend.data.targets import Targets
from nnbackend.data.weights import Exchange, class_weights, combine_weights, only_here, row_weights
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
    multilabel : bool
        Whether the network predicts several labels for each row.
    """

    backend: Backend
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    input_scale: float | None
    multilabel: bool = False

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
        rows = as_rows(x, self.input_shape, self.dtype)
        targets = self._targets(y, rows.count, loss, training)
        if class_weight is not None:
            class_weight = class_weights(class_weight, targets, self._outputs, exchange)
        weights = combine_weights(targets, sample_weight, class_weight, self._outputs, self.dtype, exchange)
        scale = input_scale_of(rows.dtype, self.input_scale)
        feed = make_feed(self.backend, rows, targets.values, weights, scale, batch_size, stream)
        feed.describe(targets, loss)
        feed.class_weights, feed.weighted = class_weight, weights is not None and not np.allclose(weights, 1, rtol=1e-5)
        return feed

    def batch(self, x: Any, y: Any, loss: Loss, sample_weight: Any) -> tuple[HostArray, Targets, HostArray | None]:
        """Checked rows, targets and weights for the device, on the host; raises as `feed` does."""
        rows = check_features(x, self.input_shape, self.dtype)
        targets = self._targets(y, len(rows), loss, training=True)
        return rows, targets, combine_weights(targets, sample_weight, None, self._outputs, self.dtype)

    def _pieces(self, stream: BatchStream, loss: Loss, batch_size: int, class_weight: HostArray | None) -> Feed:
        # Imported here because it needs threads, which a run without streaming does not.
        from nnbackend.data.streaming import Pieced

        first: list[Targets] = []

        def check(x: Any, y: Any, sample_weight: Any = None) -> list[HostArray]:
            rows = check_features(x, self.input_shape, self.dtype)
            targets = self._targets(y, len(rows), loss)
            first[:] = first or [targets]
            if targets.kind == "multilabel" and first[0].kind != "multilabel":
                _check_counted(feeds[0])
            factors = [] if sample_weight is None else [row_weights(sample_weight, len(rows))]
            if class_weight is not None:
                factors.append(class_weights(class_weight, targets, self._outputs)[targets.labels])
            if not factors:
                return [rows, targets.values]
            return [rows, targets.values, self._as_given(np.prod(factors, axis=0))]

        def scale(dtype: np.dtype[Any]) -> float:
            return input_scale_of(dtype, self.input_scale)

        feeds: list[Feed] = []
        feed = Pieced(self.backend, stream, check, scale, min(batch_size, stream.rows))
        feeds.append(feed)
        feed.describe(first[0], loss)
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
    if stream is None:
        stream = _too_large(backend, rows, targets)
    if stream:
        from nnbackend.data.streaming import Streamed

        return Streamed(backend, rows, targets, weights, scale, min(batch_size, rows.count))
    return Resident(Examples.on_device(backend, rows.array(), targets, weights, scale, shared=True))


def _too_large(backend: Backend, rows: Rows, targets: HostArray) -> bool:
    if rows.stored and rows.nbytes > _RESIDENT_BYTES:
        return True
    free = backend.free_bytes()
    return free is not None and rows.nbytes + targets.nbytes > _RESIDENT_SHARE * free
