"""Normalises rows by their largest magnitude."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.layers.base import Layer, LayerStep, one_dimensional

__all__ = ["MaxAbsNorm"]


class MaxAbsNorm(Layer):
    """``x / max |x|``, row by row: the largest magnitude of each sample becomes 1; a sample of zeros is unchanged.

    No parameters. For the gradient, and for NaN and infinity, see :meth:`nnbackend.Backend.max_abs_norm_gradient`.
    """

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        one_dimensional("MaxAbsNorm", input_shape)
        return input_shape

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.like(x)
        step.record("max_abs_norm", x, out)
        return out, x

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        if need_input_gradient:
            step.record("max_abs_norm_gradient", saved, upstream, upstream)
        return upstream
