"""The NumPy backend's losses beyond cross-entropy and squared error, clipping, and Lion: the formulas of the
contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.training_operations import TrainingOperations

__all__ = ["NumpyTraining"]

Real = npt.NDArray[np.floating[Any]]
Int = npt.NDArray[np.integer[Any]]

#: Elements that are computed at a time, so that temporary arrays stay in the cache.
_ELEMENTS = 32_768


class NumpyTraining(TrainingOperations):
    """Plain NumPy."""

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
        n, columns = outputs.shape
        rows = max(1, _ELEMENTS // columns)
        for start in range(0, n, rows):
            part = slice(start, start + rows)
            a, t = outputs[part], targets[part]
            if loss == "sigmoid_focal":
                row_losses[1, part] = ((a > 0) == (t > 0.5)).mean(axis=1)
            else:
                row_losses[1, part] = a.argmax(axis=1) == t.argmax(axis=1)
            values, slopes = _elementwise_loss(loss, a, t, parameters)
            factors = 1 / outputs.size if weights is None else (weights[part] / outputs.size)[:, None]
            row_losses[0, part] = values.mean(axis=1)
            if weights is not None:
                row_losses[0, part] *= weights[part]
            np.multiply(slopes, factors, out=gradient[part])

    def focal_rows(self, weights: Real | None, gamma: float, gradient: Real, row_losses: Real) -> None:
        value, slope = _focal(row_losses[0], gamma)
        if weights is not None:
            value, slope = value * weights, slope * weights
        row_losses[0] = value
        gradient *= slope[:, None]

    def smooth_labels(self, targets: Real | Int, smoothing: float, uniform: float, out: Real) -> None:
        if targets.ndim == 2:
            np.multiply(targets, 1 - smoothing, out=out)
            out += smoothing * uniform
        else:
            out[...] = smoothing * uniform
            out[np.arange(len(out)), targets] += 1 - smoothing

    def store_rows(self, source: Real, counter: Int, batch_size: int, out: Real) -> None:
        start = int(counter[0]) * batch_size
        out[start : start + len(source)] = source

    def square_sum(self, gradients: Real, squares: Real) -> None:
        parts = [
            gradients[start : start + _ELEMENTS].astype(np.float64) for start in range(0, gradients.size, _ELEMENTS)
        ]
        squares[0] = sum(np.square(part).sum() for part in parts)

    def clip_norm(self, squares: Real, norm: float, gradients: Real) -> None:
        total = float(squares[0])
        if not total <= norm * norm:
            gradients *= gradients.dtype.type(norm / math.sqrt(total) if math.isfinite(total) else math.nan)

    def clip_value(self, value: float, gradients: Real) -> None:
        np.clip(gradients, -value, value, out=gradients)

    def blend(self, source: Real, share: float, counter: Int, shares: Real | None, out: Real) -> None:
        taken = share if shares is None else float(shares[counter[0]])
        for start in range(0, out.size, _ELEMENTS):
            part = slice(start, start + _ELEMENTS)
            out[part] *= 1 - taken
            out[part] += taken * source[part]

    def lion_update(
        self,
        parameters: Real,
        gradients: Real,
        moment: Real,
        counter: Int,
        learning_rates: Real,
        beta1: float,
        beta2: float,
        weight_decay: float,
        momenta: Real | None = None,
    ) -> None:
        rate = float(learning_rates[counter[0]])
        if momenta is not None:
            beta1 = float(momenta[counter[0]])
        for start in range(0, parameters.size, _ELEMENTS):
            part = slice(start, start + _ELEMENTS)
            p, g, m = parameters[part], gradients[part], moment[part]
            p *= 1 - rate * weight_decay
            p -= rate * np.sign(beta1 * m + (1 - beta1) * g)
            m *= beta2
            m += (1 - beta2) * g


def _elementwise_loss(loss: str, a: Real, t: Real, p: Real) -> tuple[Real, Real]:
    """The losses of outputs, and their derivatives."""
    d = a - t
    match loss:
        case "absolute_error":
            return np.abs(d), np.sign(d)
        case "huber":
            slope = np.clip(d, -p, p)
            return slope * (d - slope / 2), slope
        case "quantile":
            slope = np.where(d > 0, 1 - p, np.where(d < 0, -p, 0))
            return slope * d, slope + 0 * d
        case "log_cosh":
            size = np.abs(d)
            return size + np.log1p(np.exp(-2 * size)) - math.log(2), np.tanh(d)
        case "poisson":
            rate = np.exp(a)
            return rate - t * a, rate - t
        case "sigmoid_focal":
            below = np.log1p(np.exp(-np.abs(a)))
            # -log(q) and -log(1 - q).
            c1, c0 = np.maximum(-a, 0) + below, np.maximum(a, 0) + below
            (f1, slope1), (f0, slope0) = _focal(c1, p), _focal(c0, p)
            return t * f1 + (1 - t) * f0, t * slope1 * np.expm1(-c1) - (1 - t) * slope0 * np.expm1(-c0)
        case _:
            raise AssertionError(f"no such loss: {loss}")


def _focal(c: Real, gamma: float | Real) -> tuple[Real, Real]:
    """``f(c) = (1 - exp(-c))^gamma c`` and its derivative."""
    # Rounding may make a cross-entropy negative.
    c = np.maximum(c, 0)
    u = -np.expm1(-c)
    # c / (exp(c) - 1), without overflow.
    share = np.divide(c * np.exp(-c), u, out=np.ones_like(c), where=~(u <= 0))
    power: Real = u**gamma
    return power * c, power * (1 + gamma * share)
