"""Jitted losses beyond cross-entropy and squared error, computed element by element in float64, and clipping.

No fast-math flags: NaN and infinity must reach the loss.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from nnbackend.backends.numba.jit import as_written, internal_as_written, jit
from nnbackend.backends.training_operations import ELEMENTWISE_LOSSES

__all__ = [
    "blend", "clip_norm", "clip_value", "elementwise_loss", "focal_rows", "smooth_labels", "square_sum", "store_rows",
]  # fmt: skip

_ABSOLUTE, _HUBER, _QUANTILE, _LOG_COSH, _POISSON, _FOCAL = range(len(ELEMENTWISE_LOSSES))
_LN2 = math.log(2)

in_any_order = partial(jit, fastmath={"reassoc", "contract"})


@as_written
def elementwise_loss(outputs, targets, weights, loss, parameters, gradient, rows, begin, end):
    """`loss` is its place in ELEMENTWISE_LOSSES."""
    n, columns = outputs.shape
    kind = outputs.dtype.type
    for i in range(begin, end):
        a = outputs[i]
        t = targets[i]
        best = 0
        wanted = 0
        same = 0
        for j in range(columns):
            if a[j] > a[best]:
                best = j
            if t[j] > t[wanted]:
                wanted = j
            same += (a[j] > 0) == (t[j] > 0.5)
        weight = np.float64(weights[i]) if weights.size else 1.0
        factor = weight / (n * columns)
        total = 0.0
        for j in range(columns):
            value, slope = _value_and_slope(loss, np.float64(a[j]), np.float64(t[j]), np.float64(parameters[j]))
            total += value
            gradient[i, j] = kind(factor * slope)
        rows[0, i] = kind(weight * total / columns)
        rows[1, i] = kind(same / columns) if loss == _FOCAL else kind(best == wanted)


@internal_as_written
def _value_and_slope(loss, a, t, p):
    d = a - t
    size = abs(d)
    if loss == _ABSOLUTE:
        return size, _sign(d)
    if loss == _HUBER:
        slope = d if size <= p else p * _sign(d)
        return slope * (d - slope / 2), slope
    if loss == _QUANTILE:
        slope = 1 - p if d > 0 else -p if d < 0 else d
        return slope * d, slope
    if loss == _LOG_COSH:
        return size + np.log1p(np.exp(-2 * size)) - _LN2, np.tanh(d)
    if loss == _POISSON:
        rate = np.exp(a)
        return rate - t * a, rate - t
    below = np.log1p(np.exp(-abs(a)))
    c1 = max(-a, 0.0) + below
    c0 = max(a, 0.0) + below
    f1, slope1 = _focal(c1, p)
    f0, slope0 = _focal(c0, p)
    return t * f1 + (1 - t) * f0, t * slope1 * np.expm1(-c1) - (1 - t) * slope0 * np.expm1(-c0)


@internal_as_written
def _sign(d):
    """NaN for NaN."""
    return 1.0 if d > 0 else -1.0 if d < 0 else d


@internal_as_written
def _focal(c, gamma):
    """``f(c) = (1 - exp(-c))^gamma c`` and its derivative."""
    # Rounding may make a cross-entropy negative.
    c = 0.0 if c < 0 else c
    u = -np.expm1(-c)
    share = 1.0 if u <= 0 else c * np.exp(-c) / u
    power = u**gamma
    return power * c, power * (1 + gamma * share)


@as_written
def focal_rows(weights, gamma, gradient, rows, begin, end):
    kind = gradient.dtype.type
    for i in range(begin, end):
        weight = np.float64(weights[i]) if weights.size else 1.0
        value, slope = _focal(np.float64(rows[0, i]), gamma)
        rows[0, i] = kind(weight * value)
        factor = kind(weight * slope)
        for j in range(gradient.shape[1]):
            gradient[i, j] *= factor


@as_written
def smooth_labels(labels, targets, smoothing, uniform, out, begin, end):
    """One of `labels` and `targets` is empty."""
    kind = out.dtype.type
    keep = kind(1 - smoothing)
    added = kind(smoothing * uniform)
    for i in range(begin, end):
        if labels.size:
            for j in range(out.shape[1]):
                out[i, j] = added
            out[i, labels[i]] += keep
        else:
            for j in range(out.shape[1]):
                out[i, j] = keep * targets[i, j] + added


@as_written
def store_rows(source, start, out):
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            out[start + i, j] = source[i, j]


@in_any_order
def square_sum(gradients, squares):
    total = 0.0
    for i in range(gradients.size):
        g = np.float64(gradients[i])
        total += g * g
    squares[0] = total


@as_written
def clip_norm(total, norm, gradients, begin, end):
    if total <= norm * norm:
        return
    factor = gradients.dtype.type(norm / math.sqrt(total) if math.isfinite(total) else math.nan)
    for i in range(begin, end):
        gradients[i] *= factor


@as_written
def clip_value(value, gradients, begin, end):
    limit = gradients.dtype.type(value)
    for i in range(begin, end):
        g = gradients[i]
        if g > limit:
            gradients[i] = limit
        elif g < -limit:
            gradients[i] = -limit


@as_written
def blend(source, share, out, begin, end):
    kept, taken = out.dtype.type(1 - share), out.dtype.type(share)
    for i in range(begin, end):
        out[i] = kept * out[i] + taken * source[i]
