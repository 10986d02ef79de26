"""The NumPy backend's activations and their gradients: the formulas of :mod:`nnbackend.backends.activations`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.activations import SELU_ALPHA, SELU_SCALE

__all__ = ["activate", "activation_gradient", "sigmoid"]

Real = npt.NDArray[np.floating[Any]]

_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def activate(z: Real, activation: str, alpha: float, out: Real) -> None:
    """Write an activation of z to `out`, which may be z."""
    match activation:
        case "identity":
            out[...] = z
        case "relu":
            np.maximum(z, 0, out=out)
        case "leaky_relu":
            out[...] = np.where(z > 0, z, alpha * z)
        case "elu":
            out[...] = np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))
        case "selu":
            out[...] = SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0)))
        case "sigmoid":
            lowest = _LOG_EPSILON[z.dtype.char]
            if np.fmin.reduce(z, axis=None, initial=0.0) < lowest:
                # The sum in `sigmoid` would round them to 0, whose logarithm is infinite. `out` may be `z`.
                low = z < lowest
                values = np.exp(z[low])
                sigmoid(z, out)
                out[low] = values
            else:
                sigmoid(z, out)
        case "tanh":
            np.tanh(z, out=out)
        case "gelu":
            np.multiply(0.5 * z, 1 + _gelu_tanh(z), out=out)
        case "silu":
            np.multiply(z, sigmoid(z), out=out)
        case "mish":
            np.multiply(z, _mish_tanh(z), out=out)
        case "softplus":
            np.add(np.maximum(z, 0), np.log1p(np.exp(-np.abs(z))), out=out)
        case "exponential":
            np.exp(z, out=out)
        case "softmax":
            np.subtract(z, z.max(axis=1, keepdims=True), out=out)
            np.exp(out, out=out)
            out /= out.sum(axis=1, keepdims=True)
        case _:
            raise AssertionError(f"no such activation: {activation}")


def activation_gradient(saved: Real, activation: str, alpha: float, upstream: Real, out: Real) -> None:
    """``upstream * d activation / dz``; `saved` is the output or the preactivation, as ACTIVATIONS says."""
    match activation:
        case "identity":
            out[...] = upstream
        case "relu":
            np.multiply(upstream, saved > 0, out=out)
        case "leaky_relu":
            out[...] = np.where(saved > 0, upstream, alpha * upstream)
        case "elu":
            out[...] = np.where(saved > 0, upstream, (saved + alpha) * upstream)
        case "selu":
            slope = np.where(saved > 0, SELU_SCALE, saved + SELU_SCALE * SELU_ALPHA)
            np.multiply(upstream, slope, out=out)
        case "sigmoid":
            np.multiply(upstream, saved * (1 - saved), out=out)
        case "tanh":
            np.multiply(upstream, 1 - saved * saved, out=out)
        case "gelu":
            t = _gelu_tanh(saved)
            slope = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * saved * saved)
            np.multiply(0.5 * upstream, 1 + t + saved * (1 - t * t) * slope, out=out)
        case "silu":
            s = sigmoid(saved)
            np.multiply(upstream * s, 1 + saved * (1 - s), out=out)
        case "mish":
            t = _mish_tanh(saved)
            np.multiply(upstream, t + saved * (1 - t * t) * sigmoid(saved), out=out)
        case "softplus":
            np.multiply(upstream, -np.expm1(-saved), out=out)
        case "exponential":
            np.multiply(upstream, saved, out=out)
        case "softmax":
            np.subtract(upstream, np.vecdot(upstream, saved)[:, None], out=out)
            out *= saved
        case _:
            raise AssertionError(f"no such activation: {activation}")


#: Below this the sigmoid is the exponential, to rounding; by the character of the dtype.
_LOG_EPSILON = {np.dtype(kind).char: np.log(np.finfo(kind).eps) for kind in (np.float32, np.float64)}


def _gelu_tanh(z: Real) -> Real:
    """The tanh in GELU. The cube is written as products: NumPy takes a hundred times as long for ``z**3``."""
    result: Real = np.tanh(_GELU_SCALE * z * (1 + _GELU_CUBIC * z * z))
    return result


def _mish_tanh(z: Real) -> Real:
    """The tanh in Mish, ``n / (n + 2)`` with ``n = exp(z) (exp(z) + 2)``. Beyond 20 it is 1, where n might overflow."""
    e = np.exp(np.minimum(z, 20))
    n: Real = e * (e + 2)
    return n / (n + 2)


def sigmoid(z: Real, out: Real | None = None) -> Real:
    """``1 / (1 + exp(-z))`` as ``(1 + tanh(z / 2)) / 2``, which cannot overflow."""
    result: Real = np.multiply(z, 0.5, out=out)
    np.tanh(result, out=result)
    result += 1
    result *= 0.5
    return result
