"""Activations and their derivatives, of whole vectors; formulae and names as in :mod:`nnbackend.backends.contract`."""

from __future__ import annotations

import math
from collections.abc import Callable

from nnbackend.backends.numba.functions import exp, expm1, larger, log1p, sigmoid, tanh
from nnbackend.backends.numba.vectors import Vector, where

__all__ = ["ACTIVATION_CODES", "FORWARD", "GRADIENT", "IDENTITY", "SOFTMAX"]

IDENTITY, SOFTMAX = 0, 9
#: Names to the codes that kernels choose by.
ACTIVATION_CODES = {
    "identity": IDENTITY,
    "relu": 1,
    "leaky_relu": 2,
    "elu": 3,
    "sigmoid": 4,
    "tanh": 5,
    "gelu": 6,
    "silu": 7,
    "softplus": 8,
    "softmax": SOFTMAX,
}

_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def _gelu(z: Vector, alpha: Vector) -> Vector:
    return 0.5 * z * (1 + tanh(_GELU_SCALE * (z + _GELU_CUBIC * z * z * z)))


def softplus(z: Vector) -> Vector:
    return larger(z, 0) + log1p(exp(-abs(z)))


#: By code, all but softmax, which is of a row and not of an element: from (z, alpha).
FORWARD: list[Callable[[Vector, Vector], Vector]] = [
    lambda z, alpha: z,
    # Written so that NaN stays NaN.
    lambda z, alpha: where(z < 0, 0, z),
    lambda z, alpha: where(z > 0, z, alpha * z),
    lambda z, alpha: where(z > 0, z, alpha * expm1(z)),
    lambda z, alpha: sigmoid(z),
    lambda z, alpha: tanh(z),
    _gelu,
    lambda z, alpha: z * sigmoid(z),
    lambda z, alpha: softplus(z),
]


def _gelu_gradient(z: Vector, alpha: Vector, upstream: Vector) -> Vector:
    t = tanh(_GELU_SCALE * (z + _GELU_CUBIC * z * z * z))
    slope = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * z * z)
    return upstream * 0.5 * (1 + t + z * (1 - t * t) * slope)


def _silu_gradient(z: Vector, alpha: Vector, upstream: Vector) -> Vector:
    s = sigmoid(z)
    return upstream * s * (1 + z * (1 - s))


#: By code: ``upstream * d activation / dz`` from (saved, alpha, upstream).
GRADIENT: list[Callable[[Vector, Vector, Vector], Vector]] = [
    lambda saved, alpha, upstream: upstream,
    lambda saved, alpha, upstream: where(saved > 0, upstream, upstream * 0),
    lambda saved, alpha, upstream: where(saved > 0, upstream, alpha * upstream),
    lambda saved, alpha, upstream: where(saved > 0, upstream, (saved + alpha) * upstream),
    lambda saved, alpha, upstream: upstream * (saved * (1 - saved)),
    lambda saved, alpha, upstream: upstream * (1 - saved * saved),
    _gelu_gradient,
    _silu_gradient,
    lambda saved, alpha, upstream: upstream * -expm1(-saved),
]
