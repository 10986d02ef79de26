"""Layers that change the shape of a sample and compute nothing."""

from __future__ import annotations

import math
from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError, shown
from nnbackend.layers.base import Layer, LayerStep
from nnbackend.layers.windows import image_shape, short, two_sides
from nnbackend.support.checks import sample_shape

__all__ = ["Flatten", "Reshape", "ZeroPadding2D"]


class Flatten(Layer):
    """Samples of shape (28, 28) become samples of shape (784,), in row-major order; nothing is computed."""

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(input_shape),)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        return step.matrix(x), None

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        return step.reshape(upstream, step.input_shape) if need_input_gradient else upstream


class Reshape(Layer):
    """Give samples another shape, in row-major order.

    Parameters
    ----------
    target_shape : tuple of int
        With the same number of elements, such as (28, 28, 1) for 784.
    trainable : bool
        Accepted for consistency; the layer has no parameters.
    """

    def __init__(self, target_shape: tuple[int, ...], *, trainable: bool = True) -> None:
        super().__init__(trainable=trainable)
        given = target_shape if isinstance(target_shape, tuple | list) else (target_shape,)
        if -1 in given:
            raise InvalidInputError(
                f"Reshape takes a shape without -1, received {shown(target_shape)}; give the size of every axis, or "
                "use Flatten() for samples of one axis"
            )
        self.target_shape = sample_shape(target_shape, "target_shape")

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(input_shape) != math.prod(self.target_shape):
            raise InvalidInputError(
                f"Reshape: samples of shape {input_shape} have {math.prod(input_shape)} elements, and "
                f"{self.target_shape} has {math.prod(self.target_shape)}"
            )
        return self.target_shape

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        return step.reshape(x, self.target_shape), None

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        return step.reshape(upstream, step.input_shape) if need_input_gradient else upstream

    def config(self) -> dict[str, Any]:
        return {"target_shape": list(self.target_shape)}

    def __repr__(self) -> str:
        frozen = "" if self.trainable else ", trainable=False"
        return f"Reshape({self.target_shape}{frozen})"


class ZeroPadding2D(Layer):
    """Add rows and columns of zeros around images.

    Parameters
    ----------
    padding : int, (int, int) or ((int, int), (int, int))
        On all sides; rows and columns; or (top, bottom), (left, right).
    trainable : bool
        Accepted for consistency; the layer has no parameters.
    """

    def __init__(self, padding: Any = 1, *, trainable: bool = True) -> None:
        super().__init__(trainable=trainable)
        self.padding = two_sides("padding", padding)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        height, width, channels = image_shape("ZeroPadding2D", input_shape)
        return height + sum(self.padding[0]), width + sum(self.padding[1]), channels

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.buffer(*self.output_shape(step.input_shape))
        step.record("place", x, self.padding[0][0], self.padding[1][0], out)
        return out, None

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        if not need_input_gradient:
            return upstream
        gradient = step.buffer(*step.input_shape)
        step.record("place", upstream, -self.padding[0][0], -self.padding[1][0], gradient)
        return gradient

    def config(self) -> dict[str, Any]:
        return {"padding": [list(sides) for sides in self.padding]}

    def __repr__(self) -> str:
        frozen = "" if self.trainable else ", trainable=False"
        return f"ZeroPadding2D({short(self.padding)}{frozen})"
