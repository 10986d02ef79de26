"""Losses beyond cross-entropy and squared error, clipping, and Lion, on a GPU: each as kernel launches."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backends.contract import Array
from nnbackend.backends.cupy import launches
from nnbackend.backends.cupy.launches import Launch
from nnbackend.backends.cupy.layout import extents, stride
from nnbackend.backends.training_operations import TrainingOperations

__all__ = ["CupyTraining"]

_DOUBLE = np.dtype(np.float64)

#: Blocks that write a partial sum, at most.
_SUM_BLOCKS = 256


class CupyTraining(TrainingOperations):
    """One warp for each row, or one thread for each element."""

    def elementwise_loss(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        loss: str,
        parameters: Array,
        gradient: Array,
        row_losses: Array,
    ) -> None:
        n, columns = extents(outputs)
        self._launch(
            f"losses.{loss}",
            outputs.dtype,
            launches.warp_rows(n),
            outputs, stride(outputs), targets, stride(targets), weights, parameters, gradient, stride(gradient),
            row_losses, stride(row_losses), n, columns,
        )  # fmt: skip

    def focal_rows(self, weights: Array | None, gamma: float, gradient: Array, row_losses: Array) -> None:
        n, classes = extents(gradient)
        self._launch(
            "losses.focal_rows",
            gradient.dtype,
            launches.warp_rows(n),
            weights, float(gamma), gradient, stride(gradient), row_losses, n, classes,
        )  # fmt: skip

    def smooth_labels(self, targets: Array, smoothing: float, uniform: float, out: Array) -> None:
        rows, columns = extents(out)
        labelled = targets.ndim == 1
        wanted = (targets, None, 0) if labelled else (None, targets, stride(targets))
        self._launch(
            "losses.smooth_labels",
            out.dtype,
            launches.matrix(rows, columns),
            *wanted, 1.0 - smoothing, float(smoothing * uniform), out, stride(out), rows, columns,
        )  # fmt: skip

    def store_rows(self, source: Array, counter: Array, batch_size: int, out: Array) -> None:
        rows, columns = extents(source)
        self._launch(
            "batch.store_rows",
            out.dtype,
            launches.matrix(rows, columns),
            source, stride(source), counter, int(batch_size), out, stride(out), rows, columns,
        )  # fmt: skip

    def square_sum(self, gradients: Array, squares: Array) -> None:
        size = int(gradients.shape[0])
        launch, total = launches.elements(size, _SUM_BLOCKS), launches.ONE_BLOCK
        partial = self._temporary(launch.blocks, _DOUBLE)
        shared = launch.threads * _DOUBLE.itemsize
        self._launch("reductions.square_sums", gradients.dtype, launch, gradients, size, partial, shared_bytes=shared)
        shared = total.threads * _DOUBLE.itemsize
        self._launch(
            "reductions.total_squares", gradients.dtype, total, partial, launch.blocks, squares, shared_bytes=shared
        )

    def clip_norm(self, squares: Array, norm: float, gradients: Array) -> None:
        size = int(gradients.shape[0])
        launch = launches.elements(size)
        self._launch("reductions.clip_norm", gradients.dtype, launch, squares, float(norm), gradients, size)

    def clip_value(self, value: float, gradients: Array) -> None:
        size = int(gradients.shape[0])
        launch = launches.elements(size)
        self._launch("reductions.clip_value", gradients.dtype, launch, float(value), gradients, size)

    def blend(self, source: Array, share: float, counter: Array, shares: Array | None, out: Array) -> None:
        size = int(out.shape[0])
        arguments = (source, float(share), counter, shares, out, size)
        self._launch("updates.blend", out.dtype, launches.elements(size), *arguments)

    def lion_update(
        self,
        parameters: Array,
        gradients: Array,
        moment: Array,
        counter: Array,
        learning_rates: Array,
        beta1: float,
        beta2: float,
        weight_decay: float,
        momenta: Array | None = None,
    ) -> None:
        size = int(parameters.shape[0])
        self._launch(
            "updates.lion",
            parameters.dtype,
            launches.elements(size),
            parameters, gradients, moment, size,
            counter, learning_rates, float(beta1), float(beta2), float(weight_decay), momenta,
        )  # fmt: skip

    # ---- what CupyOperations adds --------------------------------------------------------------------------

    def _launch(self, kernel: str, real: np.dtype[Any], launch: Launch, *arguments: Any, shared_bytes: int = 0) -> None:
        raise NotImplementedError

    def _temporary(self, size: int, dtype: np.dtype[Any]) -> Array:
        raise NotImplementedError
