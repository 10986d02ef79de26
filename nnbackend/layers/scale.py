"""A learned factor for each feature."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.initializers import Initializer, get_initializer
from nnbackend.layers.base import Layer, LayerStep, Parameter

__all__ = ["Scale"]


class Scale(Layer):
    """Multiply each feature by a learned number: ``x * scale``.

    Before the first dense layer of a network on tables it lets the network learn which columns matter (Holzmueller et
    al. 2024, section 3).

    Parameters
    ----------
    initializer : str, Initializer or (features,) array
        Of the factors, one for each element of the last axis of a sample.
    trainable : bool
        False freezes the factors.
    learning_rate_factor : float
        Multiplies the optimiser's learning rate for the factors; above 0.
    """

    def __init__(self, *, initializer: Any = "ones", trainable: bool = True, learning_rate_factor: float = 1.0) -> None:
        super().__init__(trainable=trainable, learning_rate_factor=learning_rate_factor)
        self.initializer: Initializer = get_initializer(initializer)

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        return (Parameter("scale", input_shape[-1:], self.initializer),)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.like(x)
        step.record("scale_columns", step.channels(x), step.parameter("scale"), step.channels(out))
        return out, x

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        delta = step.channels(upstream)
        if step.trainable:
            step.record("scale_columns_gradient", step.channels(saved), delta, step.gradient("scale"))
        if need_input_gradient:
            step.record("scale_columns", delta, step.parameter("scale"), delta)
        return upstream

    def config(self) -> dict[str, Any]:
        return {"initializer": self.initializer.config()}
