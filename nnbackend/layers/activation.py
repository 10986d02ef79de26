"""Activation functions as separate layers, and checks of their arguments."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.layers.base import Layer, LayerStep, one_dimensional
from nnbackend.support.checks import number

__all__ = ["Activation", "activation_name", "activation_parameter"]


class Activation(Layer):
    """``activation(x)``, element by element (softmax: row by row).

    Parameters
    ----------
    activation : str
        A key of :data:`nnbackend.backends.activations.ACTIVATIONS`.
    alpha : float, optional
        Parameter of leaky ReLU (slope, 0.01) or ELU (1.0).
    trainable : bool
        Accepted for consistency; the layer has no parameters.
    """

    def __init__(self, activation: str, *, alpha: float | None = None, trainable: bool = True) -> None:
        super().__init__(trainable=trainable)
        self.activation = activation_name(activation)
        self.alpha = activation_parameter(self.activation, alpha)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.activation == "softmax":
            one_dimensional("Activation('softmax')", input_shape)
        return input_shape

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.like(x)
        step.record("activation_forward", step.matrix(x), self.activation, self.alpha, step.matrix(out))
        return out, x if ACTIVATIONS[self.activation].saves == "preactivation" else out

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        if need_input_gradient:
            gradient = step.matrix(upstream)
            step.record("activation_gradient", step.matrix(saved), self.activation, self.alpha, gradient, gradient)
        return upstream

    def config(self) -> dict[str, Any]:
        return {"activation": self.activation, "alpha": self.alpha if ACTIVATIONS[self.activation].alpha else None}


def activation_name(name: Any) -> str:
    """A known activation's name."""
    if name is None:
        return "identity"
    if isinstance(name, Integral):
        raise InvalidInputError(
            f"activation must be a name such as 'relu', received {shown(name)}; a layer takes only the number of its "
            "outputs, and the number of its inputs from the network"
        )
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return name


def activation_parameter(activation: str, alpha: float | None) -> float:
    """The activation's parameter, or its default if none is given.

    It must not be negative. The gradients of leaky ReLU and ELU are computed from the output, whose sign tells the two
    branches apart only for non-negative parameters.
    """
    default = ACTIVATIONS[activation].alpha
    if alpha is None:
        return default
    if default == 0:
        raise InvalidInputError(f"activation {activation!r} has no parameter, received alpha={shown(alpha)}")
    return number("alpha", alpha, low=0)
