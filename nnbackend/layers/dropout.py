"""Inverted dropout (Srivastava et al. 2014), which needs no scaling in predictions."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.layers.base import Layer, LayerStep
from nnbackend.support.checks import number

__all__ = ["Dropout"]


class Dropout(Layer):
    """In training, set a random fraction of the inputs to zero and scale the others by ``1 / (1 - rate)``.

    The mask depends only on the network's seed, the layer's position, the step and the element, so it is the same on
    every backend, in every resumed run, and for any number of ranks.

    Parameters
    ----------
    rate : float
        Fraction of zeros, 0 <= rate < 1.
    trainable : bool
        Accepted for consistency; the layer has no parameters.
    """

    def __init__(self, rate: float, *, trainable: bool = True) -> None:
        super().__init__(trainable=trainable)
        self.rate = number("dropout rate", rate, low=0, high=1, below=True)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        if not step.training or self.rate == 0:
            return x, None
        out = step.like(x)
        self._record(step, step.matrix(x), step.matrix(out))
        return out, None

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        if need_input_gradient and self.rate > 0:
            # The mask is drawn again instead of stored.
            gradient = step.matrix(upstream)
            self._record(step, gradient, gradient)
        return upstream

    def _record(self, step: LayerStep, x: Array, out: Array) -> None:
        # Pass it only if it is not 0, for backends written before this argument existed.
        before = (step.first_row,) if step.first_row else ()
        step.record("dropout", x, self.rate, step.seed, step.stream, step.counter, out, *before)

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}
