"""Losses beyond cross-entropy and squared error, in terms of the array API standard."""

from __future__ import annotations

import math

from nnbackend.backends.array_api.activations import positive
from nnbackend.backends.array_api.namespace import Namespace
from nnbackend.backends.arrays import Array

__all__ = ["TrainingLosses"]


class TrainingLosses(Namespace):
    """Each operation is its formula in :mod:`nnbackend.backends.training_operations`."""

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
        xp, (rows, columns) = self.xp, outputs.shape
        if loss == "sigmoid_focal":
            correct = xp.mean(xp.astype((outputs > 0) == (targets > 0.5), outputs.dtype), axis=1)
        else:
            correct = xp.argmax(outputs, axis=1) == xp.argmax(targets, axis=1)
        values, slopes = self._elementwise_loss(loss, outputs, targets, parameters)
        self._finish(xp.mean(values, axis=1), correct, slopes, weights, 1 / (rows * columns), gradient, row_losses)

    def _elementwise_loss(self, loss: str, a: Array, t: Array, p: Array) -> tuple[Array, Array]:
        """The losses of outputs, and their derivatives."""
        xp, d = self.xp, a - t
        match loss:
            case "absolute_error":
                return xp.abs(d), xp.sign(d)
            case "huber":
                slope = xp.where(d > p, p, xp.where(d < -p, -p, d))
                return slope * (d - slope / 2), slope
            case "quantile":
                slope = xp.where(d > 0, 1 - p, xp.where(d < 0, -p, xp.zeros_like(p)))
                return slope * d, slope + 0 * d
            case "log_cosh":
                size = xp.abs(d)
                return size + xp.log1p(xp.exp(-2 * size)) - math.log(2), xp.tanh(d)
            case "poisson":
                rate = xp.exp(a)
                return rate - t * a, rate - t
            case "sigmoid_focal":
                below = xp.log1p(xp.exp(-xp.abs(a)))
                # -log(q) and -log(1 - q).
                c1, c0 = positive(xp, -a) + below, positive(xp, a) + below
                (f1, slope1), (f0, slope0) = self._focal(c1, p), self._focal(c0, p)
                return t * f1 + (1 - t) * f0, t * slope1 * xp.expm1(-c1) - (1 - t) * slope0 * xp.expm1(-c0)
            case _:
                raise AssertionError(f"no such loss: {loss}")

    def _focal(self, c: Array, gamma: float | Array) -> tuple[Array, Array]:
        """``f(c) = (1 - exp(-c))^gamma c`` and its derivative."""
        xp = self.xp
        # Rounding may make a cross-entropy negative.
        c = positive(xp, c)
        u = -xp.expm1(-c)
        # c / (exp(c) - 1), without overflow.
        one = xp.ones_like(u)
        share = xp.where(u <= 0, one, c * xp.exp(-c) / xp.where(u <= 0, one, u))
        power = u**gamma
        return power * c, power * (1 + gamma * share)

    def focal_rows(self, weights: Array | None, gamma: float, gradient: Array, row_losses: Array) -> None:
        value, slope = self._focal(row_losses[0, :], gamma)
        if weights is not None:
            value, slope = value * weights, slope * weights
        row_losses[0, :] = value
        gradient *= slope[:, None]

    def smooth_labels(self, targets: Array, smoothing: float, uniform: float, out: Array) -> None:
        if targets.ndim == 1:
            targets = self._one_hot(targets, out)
        out[...] = targets * (1 - smoothing) + smoothing * uniform

    def store_rows(self, source: Array, counter: Array, batch_size: int, out: Array) -> None:
        start = int(self._numbers(counter)[0]) * batch_size
        out[start : start + source.shape[0], ...] = source
