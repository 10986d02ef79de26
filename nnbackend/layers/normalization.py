"""Normalisation by the statistics of a batch or of a sample, with a learned scale and shift."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError, shown
from nnbackend.initializers import Ones, Zeros
from nnbackend.layers.base import Layer, LayerStep, Parameter
from nnbackend.support.checks import above_zero, number

__all__ = ["BatchNormalization", "LayerNormalization"]


_DEFAULTS = {"momentum": 0.99, "epsilon": 1e-3, "center": True, "scale": True}


class _Normalization(Layer):
    """With a scale and a shift for each channel, the last axis of a sample."""

    def __init__(self, epsilon: float, center: bool, scale: bool, trainable: bool, learning_rate_factor: float) -> None:
        super().__init__(trainable=trainable, learning_rate_factor=learning_rate_factor)
        self.epsilon = above_zero("epsilon", epsilon)
        for name, value in (("center", center), ("scale", scale)):
            if not isinstance(value, bool):
                raise InvalidInputError(f"{name} must be True or False, received {shown(value)}")
        self.center, self.scale = center, scale

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        learned = []
        if self.scale:
            learned.append(Parameter("scale", input_shape[-1:], Ones()))
        if self.center:
            learned.append(Parameter("shift", input_shape[-1:], Zeros()))
        return tuple(learned)

    def _learned(self, step: LayerStep) -> tuple[Array | None, Array | None]:
        """Scale and shift, as far as the layer has them."""
        return step.parameter("scale") if self.scale else None, step.parameter("shift") if self.center else None

    def config(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon, "center": self.center, "scale": self.scale}

    def __repr__(self) -> str:
        """With the arguments that are not the default."""
        given = {name: value for name, value in self.config().items() if value != _DEFAULTS[name]}
        given |= self.training_config()
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"


class BatchNormalization(_Normalization):
    """Normalise each channel by its mean and variance over the batch (Ioffe and Szegedy 2015), as in Keras.

    Training normalises by the statistics of the batch and updates running statistics, which predictions use:
    ``running = momentum * running + (1 - momentum) * statistic``, with the biased variance. A frozen layer uses its
    running statistics in training, too. A batch of one row is normalised over its positions; without positions, its
    variance is 0 and the output is the shift. Predictions after a dense layer or a convolution without activation
    normalise its weight instead of its output if that is smaller, which changes results in the last bits.

    With several ranks, each normalises by the statistics of its own rows, so results depend on the number of ranks.
    Running statistics are averaged over the ranks after each step, weighted with their rows.

    Parameters
    ----------
    momentum : float
        0 <= momentum <= 1. Share of the old running statistics; PyTorch's momentum is one minus this.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether a shift and a scale are learned.
    trainable : bool
        False freezes scale, shift and running statistics.
    learning_rate_factor : float
        Multiplies the optimiser's learning rate for scale and shift; above 0.
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        *,
        center: bool = True,
        scale: bool = True,
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
    ) -> None:
        super().__init__(epsilon, center, scale, trainable, learning_rate_factor)
        self.momentum = number("momentum", momentum, low=0, high=1)

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        return (
            *super().parameters(input_shape),
            Parameter("running_mean", input_shape[-1:], Zeros(), trainable=False),
            Parameter("running_variance", input_shape[-1:], Ones(), trainable=False, nonnegative=True),
        )

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.like(x)
        scale, shift = self._learned(step)
        mean, variance = step.parameter("running_mean"), step.parameter("running_variance")
        source, target = step.channels(x), step.channels(out)
        if not (step.training and step.trainable):
            step.record("normalize", source, mean, variance, scale, shift, self.epsilon, target)
            return out, None
        statistics = step.memory(2, x.shape[-1])
        step.record("batch_norm", source, scale, shift, self.momentum, self.epsilon, mean, variance, statistics, target)
        return out, (source, statistics)

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        scale, _ = self._learned(step)
        delta = step.channels(upstream)
        if saved is not None:
            x, statistics = saved
            gradients = (
                step.gradient("scale") if self.scale else None,
                step.gradient("shift") if self.center else None,
            )
            step.record("batch_norm_gradient", x, statistics, scale, delta, *gradients, delta)
        elif need_input_gradient:
            variance = step.parameter("running_variance")
            step.record("normalize", delta, None, variance, scale, None, self.epsilon, delta)
        return upstream

    def config(self) -> dict[str, Any]:
        return {"momentum": self.momentum, **super().config()}


class LayerNormalization(_Normalization):
    """Normalise each sample, or each position of an image, by mean and variance over its channels (Ba et al. 2016).

    Parameters
    ----------
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether a shift and a scale are learned.
    trainable : bool
        False freezes scale and shift.
    learning_rate_factor : float
        Multiplies the optimiser's learning rate for scale and shift; above 0.
    """

    def __init__(
        self,
        epsilon: float = 1e-3,
        *,
        center: bool = True,
        scale: bool = True,
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
    ) -> None:
        super().__init__(epsilon, center, scale, trainable, learning_rate_factor)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.like(x)
        source = step.channels(x)
        statistics = step.channels(step.buffer(*step.input_shape[:-1], 2))
        scale, shift = self._learned(step)
        step.record("layer_norm", source, scale, shift, self.epsilon, statistics, step.channels(out))
        return out, (source, statistics)

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        x, statistics = saved
        delta = step.channels(upstream)
        if step.trainable and self.scale:
            step.record("layer_norm_scale_gradient", x, statistics, delta, step.gradient("scale"))
        if step.trainable and self.center:
            step.record("bias_gradient", delta, step.gradient("shift"))
        if need_input_gradient:
            step.record("layer_norm_gradient", x, statistics, self._learned(step)[0], delta, delta)
        return upstream
