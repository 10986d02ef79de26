"""The operations for more losses and for clipping, outside of compiled programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.numba import loss_kernels
from nnbackend.backends.training_operations import ELEMENTWISE_LOSSES, TrainingOperations

__all__ = ["NumbaTraining"]

Real = npt.NDArray[np.floating[Any]]
Int = npt.NDArray[np.integer[Any]]

_CODES = {name: code for code, name in enumerate(ELEMENTWISE_LOSSES)}


class NumbaTraining(TrainingOperations):
    """Calls of the jitted kernels."""

    def elementwise_loss(
        self,
        outputs: Real,
        targets: Real,
        weights: Real | None,
        loss: str,
        parameters: Real,
        gradient: Real,
        row_losses: Real,
    ) -> None:
        given = row_losses[0, :0] if weights is None else weights
        loss_kernels.elementwise_loss(
            outputs, targets, given, _CODES[loss], parameters, gradient, row_losses, 0, len(outputs)
        )

    def focal_rows(self, weights: Real | None, gamma: float, gradient: Real, row_losses: Real) -> None:
        given = row_losses[0, :0] if weights is None else weights
        loss_kernels.focal_rows(given, float(gamma), gradient, row_losses, 0, len(gradient))

    def smooth_labels(self, targets: Real | Int, smoothing: float, uniform: float, out: Real) -> None:
        labels, values = (targets, out[:0]) if targets.ndim == 1 else (np.empty(0, np.int32), targets)
        loss_kernels.smooth_labels(labels, values, float(smoothing), float(uniform), out, 0, len(out))

    def square_sum(self, gradients: Real, squares: Real) -> None:
        loss_kernels.square_sum(gradients, squares)

    def clip_norm(self, squares: Real, norm: float, gradients: Real) -> None:
        loss_kernels.clip_norm(float(squares[0]), float(norm), gradients, 0, gradients.size)

    def blend(self, source: Real, share: float, counter: Int, shares: Real | None, out: Real) -> None:
        taken = share if shares is None else float(shares[counter[0]])
        loss_kernels.blend(source, float(taken), out, 0, out.size)

    def clip_value(self, value: float, gradients: Real) -> None:
        loss_kernels.clip_value(float(value), gradients, 0, gradients.size)
