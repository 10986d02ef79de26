"""Activations and their derivatives for whole vectors, each declared once.

The formulas are those of :data:`nnbackend.backends.activations.ACTIVATIONS`. Kernels select one by its code, the index
of the declaration. Softmax works on rows instead of elements and is written in `kernels.py`; its code comes last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nnbackend.backends.activations import SELU_ALPHA, SELU_SCALE
from nnbackend.backends.numba.functions import exp, expm1, larger, log1p, sigmoid, tanh
from nnbackend.backends.numba.vectors import Vector, where

__all__ = ["ACTIVATION_CODES", "ELEMENTWISE", "IDENTITY", "PIECEWISE_LINEAR", "SOFTMAX", "Elementwise", "softplus"]

_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


@dataclass(frozen=True)
class Elementwise:
    """An elementwise activation.

    Attributes
    ----------
    forward : callable
        From (z, alpha).
    gradient : callable
        ``upstream * d activation / dz`` from (saved, alpha, upstream); `saved` is the output or the pre-activation, as
        ACTIVATIONS says.
    """

    forward: Callable[[Vector, Vector], Vector]
    gradient: Callable[[Vector, Vector, Vector], Vector]


def softplus(z: Vector) -> Vector:
    """``log(1 + exp(z))`` without overflow."""
    return larger(z, 0) + log1p(exp(-abs(z)))


def _gelu(z: Vector, alpha: Vector) -> Vector:
    return 0.5 * z * (1 + tanh(_GELU_SCALE * (z + _GELU_CUBIC * z * z * z)))


def _gelu_gradient(z: Vector, alpha: Vector, upstream: Vector) -> Vector:
    t = tanh(_GELU_SCALE * (z + _GELU_CUBIC * z * z * z))
    slope = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * z * z)
    return upstream * 0.5 * (1 + t + z * (1 - t * t) * slope)


def _silu_gradient(z: Vector, alpha: Vector, upstream: Vector) -> Vector:
    s = sigmoid(z)
    return upstream * s * (1 + z * (1 - s))


def _mish_tanh(z: Vector) -> Vector:
    """The tanh in Mish, ``n / (n + 2)`` with ``n = exp(z) (exp(z) + 2)``. Beyond 20 it is 1, where n might overflow."""
    e = exp(where(z > 20, 20, z))
    n = e * (e + 2)
    return n / (n + 2)


def _mish_gradient(z: Vector, alpha: Vector, upstream: Vector) -> Vector:
    t = _mish_tanh(z)
    return upstream * (t + z * (1 - t * t) * sigmoid(z))


ELEMENTWISE: dict[str, Elementwise] = {
    "identity": Elementwise(
        forward=lambda z, alpha: z,
        gradient=lambda saved, alpha, upstream: upstream,
    ),
    "relu": Elementwise(
        # Written so that NaN propagates.
        forward=lambda z, alpha: where(z < 0, 0, z),
        gradient=lambda saved, alpha, upstream: where(saved > 0, upstream, upstream * 0),
    ),
    "leaky_relu": Elementwise(
        forward=lambda z, alpha: where(z > 0, z, alpha * z),
        gradient=lambda saved, alpha, upstream: where(saved > 0, upstream, alpha * upstream),
    ),
    "elu": Elementwise(
        forward=lambda z, alpha: where(z > 0, z, alpha * expm1(z)),
        gradient=lambda saved, alpha, upstream: where(saved > 0, upstream, (saved + alpha) * upstream),
    ),
    "selu": Elementwise(
        forward=lambda z, alpha: SELU_SCALE * where(z > 0, z, SELU_ALPHA * expm1(z)),
        gradient=lambda saved, alpha, upstream: (
            upstream * where(saved > 0, SELU_SCALE, saved + SELU_SCALE * SELU_ALPHA)
        ),
    ),
    "sigmoid": Elementwise(
        forward=lambda z, alpha: sigmoid(z),
        gradient=lambda saved, alpha, upstream: upstream * (saved * (1 - saved)),
    ),
    "tanh": Elementwise(
        forward=lambda z, alpha: tanh(z),
        gradient=lambda saved, alpha, upstream: upstream * (1 - saved * saved),
    ),
    "gelu": Elementwise(
        forward=_gelu,
        gradient=_gelu_gradient,
    ),
    "silu": Elementwise(
        forward=lambda z, alpha: z * sigmoid(z),
        gradient=_silu_gradient,
    ),
    "mish": Elementwise(
        forward=lambda z, alpha: z * _mish_tanh(z),
        gradient=_mish_gradient,
    ),
    "softplus": Elementwise(
        forward=lambda z, alpha: softplus(z),
        gradient=lambda saved, alpha, upstream: upstream * -expm1(-saved),
    ),
    "exponential": Elementwise(
        forward=lambda z, alpha: exp(z),
        gradient=lambda saved, alpha, upstream: upstream * saved,
    ),
}

#: The activations that are compiled apart from the others, first among them: most networks need no other, and the
#: others take a second to compile.
PIECEWISE_LINEAR = ("identity", "relu", "leaky_relu")

#: Code of each activation by name.
ACTIVATION_CODES = {name: code for code, name in enumerate([*ELEMENTWISE, "softmax"])}
IDENTITY, SOFTMAX = ACTIVATION_CODES["identity"], ACTIVATION_CODES["softmax"]
