"""What comes from the caller to be trained on: checked, and on its way to the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.data.batch_stream import BatchStream
from nnbackend.data.feeds import Feed, make_feed
from nnbackend.data.inputs import as_host_array, check_features, input_scale_of
from nnbackend.data.rows import as_rows
from nnbackend.data.targets import Targets, combine_weights, row_weights
from nnbackend.errors import InvalidInputError
from nnbackend.losses import Loss

__all__ = ["Intake"]


@dataclass(frozen=True, eq=False)
class Intake:
    """What data have to be for one network.

    Attributes
    ----------
    backend : Backend
    input_shape, output_shape : tuple of int
        Of a sample.
    dtype : numpy dtype
    input_scale : float or None
        Factor on the inputs; None for 1/255 on bytes and 1 on all else.
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
        """Check data and bring them to the device, or on their way; see :func:`nnbackend.data.feeds.make_feed` and, for
        `mean_weight`, :func:`nnbackend.data.targets.combine_weights`.

        Raises
        ------
        InvalidInputError
            The data do not fit the network or the loss; nothing was changed.
        """
        if isinstance(x, BatchStream):
            others = (("y", y), ("sample_weight", sample_weight), ("class_weight", class_weight))
            for name, value in others:
                if value is not None:
                    raise InvalidInputError(f"a BatchStream brings all there is to a row; leave {name} out")
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
        """Rows, targets and weights as the device takes them, still on the host; raises as `feed` does."""
        rows = check_features(x, self.input_shape, self.dtype)
        targets = self._targets(y, len(rows), loss)
        return rows, targets, combine_weights(targets, sample_weight, None, self._outputs, self.dtype)

    def _pieces(self, stream: BatchStream, loss: Loss, batch_size: int) -> Feed:
        # Threads are for those who stream.
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
        return Targets.prepare(loss, as_host_array("y", y), rows, self._outputs, self.dtype)

    @property
    def _outputs(self) -> int:
        return math.prod(self.output_shape)
