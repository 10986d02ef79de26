"""Flattens samples of any shape."""

from __future__ import annotations

import math
from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.layers.base import Layer, LayerStep

__all__ = ["Flatten"]


class Flatten(Layer):
    """Samples of shape (28, 28) become samples of shape (784,), in row-major order; nothing is computed."""

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(input_shape),)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        return step.matrix(x), None

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        return step.reshape(upstream, step.input_shape) if need_input_gradient else upstream
