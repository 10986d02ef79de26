"""A learned mix of an activation and the identity."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError
from nnbackend.initializers import Initializer, get_initializer
from nnbackend.layers.activation import activation_name, activation_parameter
from nnbackend.layers.base import Layer, LayerStep, Parameter

__all__ = ["ParametricActivation"]


class ParametricActivation(Layer):
    """``x + share * (activation(x) - x)`` with a learned share of the activation for each feature.

    With a share of 1, from which training starts, this is the activation; with 0, the identity. Put it after a layer
    without an activation: ``[nn.Dense(256), nn.ParametricActivation("mish")]`` (Holzmueller et al. 2024 [1]_).

    Parameters
    ----------
    activation : str
        A key of :data:`nnbackend.backends.activations.ACTIVATIONS`, but neither "identity" nor "softmax".
    alpha : float, optional
        Parameter of leaky ReLU (slope, 0.01) or ELU (1.0).
    initializer : str, Initializer or (features,) array
        Of the shares, one for each element of the last axis of a sample.
    trainable : bool
        False freezes the shares.
    learning_rate_factor : float
        Multiplies the optimiser's learning rate for the shares; above 0.

    Raises
    ------
    InvalidInputError
        The activation is "identity" or "softmax", or a value is out of range.
    UnknownNameError
        There is no such activation.

    References
    ----------
    .. [1] D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees
       on Tabular Data", NeurIPS 2024, https://arxiv.org/abs/2407.04491
    """

    def __init__(
        self,
        activation: str,
        *,
        alpha: float | None = None,
        initializer: Any = "ones",
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
    ) -> None:
        super().__init__(trainable=trainable, learning_rate_factor=learning_rate_factor)
        self.activation = activation_name(activation)
        if self.activation in ("identity", "softmax"):
            raise InvalidInputError(
                f"ParametricActivation mixes an activation of single numbers with the identity, received "
                f"{activation!r}; take another, such as 'selu'"
            )
        self.alpha = activation_parameter(self.activation, alpha)
        self.initializer: Initializer = get_initializer(initializer)

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        return (Parameter("share", input_shape[-1:], self.initializer),)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        activated, out = step.like(x), step.like(x)
        step.record("activation_forward", step.matrix(x), self.activation, self.alpha, step.matrix(activated))
        step.record(
            "mix_columns", step.channels(x), step.channels(activated), step.parameter("share"), step.channels(out)
        )
        return out, (x, activated)

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        x, activated = saved
        delta = step.channels(upstream)
        if step.trainable:
            step.record(
                "mix_columns_gradient", step.channels(x), step.channels(activated), delta, step.gradient("share")
            )
        if need_input_gradient:
            # The gradient is the same mix: of what passes through the identity and through the activation.
            through = step.like(x)
            kept = x if ACTIVATIONS[self.activation].saves == "preactivation" else activated
            arguments = step.matrix(kept), self.activation, self.alpha, step.matrix(upstream), step.matrix(through)
            step.record("activation_gradient", *arguments)
            step.record("mix_columns", delta, step.channels(through), step.parameter("share"), delta)
        return upstream

    def config(self) -> dict[str, Any]:
        return {
            "activation": self.activation,
            "alpha": self.alpha if ACTIVATIONS[self.activation].alpha else None,
            "initializer": self.initializer.config(),
        }
