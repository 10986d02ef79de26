"""Dropout (Srivastava et al. 2014), inverted: nothing is left to do when predicting."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.layers.base import Layer, LayerStep
from nnbackend.support.checks import number

__all__ = ["Dropout"]


class Dropout(Layer):
    """While training, set a random share of the inputs to zero and scale the others by ``1 / (1 - rate)``.

    The mask depends on the network's seed, the layer's place, the step and the element alone, so it is the same on
    every backend, in every resumed run, and however many machines share a batch.

    Parameters
    ----------
    rate : float
        Share of zeros, 0 <= rate < 1.
    trainable : bool
        Accepted as by every layer; there is nothing to learn.
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
            # The mask is drawn again rather than kept.
            gradient = step.matrix(upstream)
            self._record(step, gradient, gradient)
        return upstream

    def _record(self, step: LayerStep, x: Array, out: Array) -> None:
        # Passed only if it is not 0: backends written before this argument existed do not take it.
        before = (step.first_row,) if step.first_row else ()
        step.record("dropout", x, self.rate, step.seed, step.stream, step.counter, out, *before)

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}
