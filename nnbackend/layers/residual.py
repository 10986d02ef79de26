"""Residual connections (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError
from nnbackend.layers.base import Layer, LayerStep, layers_config

__all__ = ["Residual"]


class Residual(Layer):
    """``x + layers(x)``, or ``projection(x) + layers(x)``.

    Parameters
    ----------
    layers : list of Layer
        In order. Without a projection their output has the shape of `x`.
    projection : Layer, optional
        For example ``Conv2D(64, 1, strides=2)``, where the shapes differ.
    trainable : bool
        False freezes all of these layers.
    learning_rate_factor : float
        Multiplies the learning rates of all of these layers; above 0.

    Raises
    ------
    InvalidInputError
        `layers` is empty; when the network is built: the two shapes differ.
    """

    layer_arguments = ("layers", "projection")

    def __init__(
        self,
        layers: Sequence[Layer],
        projection: Layer | Sequence[Layer] | None = None,
        *,
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
    ) -> None:
        super().__init__(trainable=trainable, learning_rate_factor=learning_rate_factor)
        if isinstance(layers, Layer) or not isinstance(layers, Sequence) or not layers:
            raise InvalidInputError("Residual takes a list of at least one layer: Residual([Dense(10)])")
        self.layers = tuple(layers)
        inner = () if projection is None else (projection,) if isinstance(projection, Layer) else tuple(projection)
        self.projection = inner
        self.sublayers = (*self.layers, *self.projection)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        result, shortcut = _through(self.layers, input_shape), _through(self.projection, input_shape)
        if result != shortcut:
            raise InvalidInputError(
                f"Residual: the layers turn {input_shape} into {result}, which cannot be added to {shortcut}; give a "
                "projection with that output, such as projection=Conv2D(filters, 1, strides=...) or Dense(units)"
            )
        return result

    def sublayer_shapes(self, input_shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        shapes = []
        for path in (self.layers, self.projection):
            shape = input_shape
            for layer in path:
                shapes.append(shape)
                shape = layer.output_shape(shape)
        return tuple(shapes)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        result, saved = step.forward(self.layers, x)
        shortcut, saved_shortcut = step.forward(self.projection, x)
        out = step.like(result)
        step.record("add", step.matrix(result), step.matrix(shortcut), step.matrix(out))
        return out, (saved, saved_shortcut)

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        through, shortcut = saved
        # Both paths may overwrite the gradient.
        copy = step.like(upstream)
        step.record("activation_forward", step.matrix(upstream), "identity", 0.0, step.matrix(copy))
        first = step.backward(self.layers, through, upstream, need_input_gradient)
        second = step.backward(self.projection, shortcut, copy, need_input_gradient)
        if need_input_gradient:
            step.record("add", step.matrix(first), step.matrix(second), step.matrix(first))
        return first

    def config(self) -> dict[str, Any]:
        return {"layers": layers_config(self.layers), "projection": layers_config(self.projection) or None}

    def __repr__(self) -> str:
        projection = f", projection={list(self.projection)!r}" if self.projection else ""
        return f"Residual({list(self.layers)!r}{projection}{self._training_text()})"


def _through(layers: Sequence[Layer], shape: tuple[int, ...]) -> tuple[int, ...]:
    for layer in layers:
        shape = layer.output_shape(shape)
    return shape
