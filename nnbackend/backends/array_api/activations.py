"""The activation functions of the contract and their derivatives, as formulas on arrays of any library."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from nnbackend.backends.activations import SELU_ALPHA, SELU_SCALE
from nnbackend.backends.arrays import Array

__all__ = ["FORWARD", "GRADIENT", "positive", "sigmoid"]

_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def positive(xp: Any, z: Array) -> Array:
    """``max(z, 0)``; the standard leaves open what its own maximum makes of NaN."""
    return xp.where(z < 0, xp.zeros_like(z), z)


def sigmoid(xp: Any, z: Array) -> Array:
    """``1 / (1 + exp(-z))`` as ``(1 + tanh(z / 2)) / 2``, which cannot overflow."""
    return 0.5 * (1.0 + xp.tanh(0.5 * z))


def _accurate_sigmoid(xp: Any, z: Array) -> Array:
    """The sigmoid, also where the sum in the other formula would round it to 0, whose logarithm is infinite."""
    lowest = math.log(float(xp.finfo(z.dtype).eps))
    return xp.where(z < lowest, xp.exp(-xp.abs(z)), sigmoid(xp, z))


def _negative(xp: Any, z: Array) -> Array:
    """``min(z, 0)``."""
    return xp.where(z > 0, xp.zeros_like(z), z)


def _gelu_tanh(xp: Any, z: Array) -> Array:
    return xp.tanh(_GELU_SCALE * z * (1.0 + _GELU_CUBIC * z * z))


def _softmax(xp: Any, z: Array) -> Array:
    e = xp.exp(z - xp.max(z, axis=1, keepdims=True))
    return e / xp.sum(e, axis=1, keepdims=True)


def _gelu_gradient(xp: Any, z: Array, g: Array) -> Array:
    t = _gelu_tanh(xp, z)
    slope = _GELU_SCALE * (1.0 + 3 * _GELU_CUBIC * z * z)
    return 0.5 * g * (1.0 + t + z * (1.0 - t * t) * slope)


def _silu_gradient(xp: Any, z: Array, g: Array) -> Array:
    s = sigmoid(xp, z)
    return g * s * (1.0 + z * (1.0 - s))


def _mish_tanh(xp: Any, z: Array) -> Array:
    """The tanh in Mish, ``n / (n + 2)`` with ``n = exp(z) (exp(z) + 2)``; beyond 20 it is 1, where n might overflow."""
    e = xp.exp(20.0 - positive(xp, 20.0 - z))
    n = e * (e + 2.0)
    return n / (n + 2.0)


def _mish_gradient(xp: Any, z: Array, g: Array) -> Array:
    t = _mish_tanh(xp, z)
    return g * (t + z * (1.0 - t * t) * sigmoid(xp, z))


#: By name: the function of the namespace, the pre-activation z and the parameter a.
FORWARD: Mapping[str, Callable[[Any, Array, float], Array]] = {
    "identity": lambda xp, z, a: z,
    "relu": lambda xp, z, a: positive(xp, z),
    "leaky_relu": lambda xp, z, a: xp.where(z > 0, z, a * z),
    "elu": lambda xp, z, a: xp.where(z > 0, z, a * xp.expm1(_negative(xp, z))),
    "selu": lambda xp, z, a: SELU_SCALE * xp.where(z > 0, z, SELU_ALPHA * xp.expm1(_negative(xp, z))),
    "sigmoid": lambda xp, z, a: _accurate_sigmoid(xp, z),
    "tanh": lambda xp, z, a: xp.tanh(z),
    "gelu": lambda xp, z, a: 0.5 * z * (1.0 + _gelu_tanh(xp, z)),
    "silu": lambda xp, z, a: z * sigmoid(xp, z),
    "mish": lambda xp, z, a: z * _mish_tanh(xp, z),
    "softplus": lambda xp, z, a: positive(xp, z) + xp.log1p(xp.exp(-xp.abs(z))),
    "exponential": lambda xp, z, a: xp.exp(z),
    "softmax": lambda xp, z, a: _softmax(xp, z),
}

#: By name: the gradient of the pre-activation, from what the forward pass saved (see ACTIVATIONS), the parameter a and
#: the gradient g of the output.
GRADIENT: Mapping[str, Callable[[Any, Array, float, Array], Array]] = {
    "identity": lambda xp, s, a, g: g,
    "relu": lambda xp, s, a, g: g * xp.astype(s > 0, g.dtype),
    "leaky_relu": lambda xp, s, a, g: xp.where(s > 0, g, a * g),
    "elu": lambda xp, s, a, g: xp.where(s > 0, g, (s + a) * g),
    "selu": lambda xp, s, a, g: xp.where(s > 0, SELU_SCALE * g, (s + SELU_SCALE * SELU_ALPHA) * g),
    "sigmoid": lambda xp, s, a, g: g * (s * (1.0 - s)),
    "tanh": lambda xp, s, a, g: g * (1.0 - s * s),
    "gelu": lambda xp, s, a, g: _gelu_gradient(xp, s, g),
    "silu": lambda xp, s, a, g: _silu_gradient(xp, s, g),
    "mish": lambda xp, s, a, g: _mish_gradient(xp, s, g),
    "softplus": lambda xp, s, a, g: g * -xp.expm1(-s),
    "exponential": lambda xp, s, a, g: g * s,
    "softmax": lambda xp, s, a, g: s * (g - xp.sum(g * s, axis=1, keepdims=True)),
}
