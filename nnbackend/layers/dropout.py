"""Dropout (Srivastava et al. 2014), inverted: nothing is left to do when predicting."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.base import Array
from nnbackend.checks import number
from nnbackend.layers.base import Layer, LayerStep

__all__ = ["Dropout"]


class Dropout(Layer):
    """While training, set a random share of the inputs to zero and scale the others by ``1 / (1 - rate)``.

    The mask depends on the network's seed, the layer's place, the step and the element alone, so it is the same on
    every backend and in every resumed run.

    Parameters
    ----------
    rate : float
        Share of zeros, 0 <= rate < 1.
    """

    def __init__(self, rate: float) -> None:
        self.rate = number("dropout rate", rate, low=0, high=1, below=True)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        if not step.training or self.rate == 0:
            return x, None
        out = step.buffer(x.shape[1])
        step.record("dropout", x, self.rate, step.seed, step.stream, step.counter, out)
        return out, None

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        if need_input_gradient and self.rate > 0:
            # The mask is drawn again rather than kept.
            step.record("dropout", upstream, self.rate, step.seed, step.stream, step.counter, upstream)
        return upstream

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}
