"""The fully connected layer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.initializers import Given, Initializer, get_initializer
from nnbackend.layers.activation import activation_name, activation_parameter
from nnbackend.layers.base import Layer, LayerStep, Parameter, one_dimensional
from nnbackend.support.checks import number, positive_integer

__all__ = ["Dense", "Linear"]

#: He et al. (2015) derive their scale for ReLU; it also suits similar activations. SELU keeps mean and variance of its
#: inputs with the scale of LeCun et al. (1998).
_INITIALIZERS = {
    **dict.fromkeys(("relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "mish"), "he_normal"),
    "selu": "lecun_normal",
}


_PARAMETRIZATIONS = ("standard", "ntk")

#: Of the biases in the neural tangent parametrisation; called beta by Jacot et al. (2018, section 3).
_NTK_BIAS = 0.1


class Linear(Layer):
    """What `Dense` and the convolutions have in common: a weight, a bias and an activation.

    The parameters are those of :class:`Dense`.
    """

    def __init__(
        self,
        activation: str | None,
        use_bias: bool,
        weight_initializer: Any,
        bias_initializer: Any,
        l1: float,
        l2: float,
        alpha: float | None,
        trainable: bool,
        learning_rate_factor: float,
    ) -> None:
        super().__init__(trainable=trainable, learning_rate_factor=learning_rate_factor)
        self.activation = activation_name(activation)
        self.alpha = activation_parameter(self.activation, alpha)
        if not isinstance(use_bias, bool):
            raise InvalidInputError(f"use_bias must be True or False, received {shown(use_bias)}")
        self.use_bias = use_bias
        default = _INITIALIZERS.get(self.activation, "glorot_uniform")
        self.weight_initializer: Initializer = get_initializer(
            default if weight_initializer is None else weight_initializer
        )
        self.bias_initializer: Initializer = get_initializer(bias_initializer)
        self.l1 = number("l1", l1, low=0)
        self.l2 = number("l2", l2, low=0)

    def weight_and_bias(self, shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        """The parameters for a weight of this shape, whose last axis is that of the outputs."""
        weight = Parameter("weight", shape, self.weight_initializer, self.l1, self.l2)
        if not self.use_bias:
            return (weight,)
        return (weight, Parameter("bias", shape[-1:], self.bias_initializer))

    def config(self) -> dict[str, Any]:
        return {
            "activation": self.activation,
            "use_bias": self.use_bias,
            "weight_initializer": self.weight_initializer.config(),
            "bias_initializer": self.bias_initializer.config(),
            "l1": self.l1,
            "l2": self.l2,
            "alpha": self.alpha if ACTIVATIONS[self.activation].alpha else None,
        }


class Dense(Linear):
    """``activation(x @ weight + bias)``.

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : str, optional
        A key of :data:`nnbackend.backends.activations.ACTIVATIONS`; "identity" if not given.
    use_bias : bool
    weight_initializer : str, Initializer or (inputs, units) array, optional
        If not given, He normal for ReLU and similar activations, LeCun normal for SELU, Glorot uniform otherwise.
    bias_initializer : str, Initializer or (units,) array
    l1, l2 : float
        ``l1 sum |weight| + l2 / 2 sum weight^2`` is added to the loss.
    alpha : float, optional
        Parameter of leaky ReLU (slope, 0.01) or ELU (1.0).
    trainable : bool
        False freezes weight and bias: training does not change them.
    learning_rate_factor : float
        Multiplies the optimiser's learning rate for weight and bias; above 0.
    parametrization : {"standard", "ntk"}
        "ntk" is the neural tangent parametrisation (Jacot et al. 2018 [1]_): training acts on ``w = sqrt(inputs)
        weight`` and ``b = bias / 0.1``, so that layers of any width learn at the same learning rate. See the notes.

    Raises
    ------
    InvalidInputError
        A value is out of range.
    UnknownNameError
        No activation, initialiser or parametrisation has that name.

    Notes
    -----
    The parameters are weight and bias in both parametrisations, so exports do not differ. With "ntk", the default of
    `weight_initializer` is LeCun normal, for which w is standard normal, and the learning rates of weight and bias are
    multiplied by ``1 / sqrt(inputs)`` and 0.1. With Adam, AdamW and RMSprop, whose steps do not depend on the scale of
    gradients, but for `epsilon`, this is the same as training w and b, but for a weight decay, which the factors
    multiply, too; with SGD, the factors would be their squares.

    References
    ----------
    .. [1] A. Jacot, F. Gabriel and C. Hongler, "Neural Tangent Kernel: Convergence and Generalization in Neural
       Networks", NeurIPS 2018, https://arxiv.org/abs/1806.07572
    """

    # Of pickles from before there was another.
    parametrization = "standard"

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        *,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        l1: float = 0.0,
        l2: float = 0.0,
        alpha: float | None = None,
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
        parametrization: str = "standard",
    ) -> None:
        training = (trainable, learning_rate_factor)
        if not isinstance(parametrization, str) or parametrization not in _PARAMETRIZATIONS:
            raise UnknownNameError("parametrization", parametrization, _PARAMETRIZATIONS)
        self.parametrization = parametrization
        if weight_initializer is None and parametrization == "ntk":
            weight_initializer = "lecun_normal"
        super().__init__(activation, use_bias, weight_initializer, bias_initializer, l1, l2, alpha, *training)
        self.units = positive_integer("units", units)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        one_dimensional("Dense", input_shape)
        return (self.units,)

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        inputs = one_dimensional("Dense", input_shape)
        parameters = self.weight_and_bias((inputs, self.units))
        if self.parametrization == "standard":
            return parameters
        factors = (1 / math.sqrt(inputs), _NTK_BIAS)
        return tuple(
            replace(each, learning_rate_factor=factor) for each, factor in zip(parameters, factors, strict=False)
        )

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.buffer(self.units)
        keeps_z = ACTIVATIONS[self.activation].saves == "preactivation"
        z = step.buffer(self.units) if keeps_z else None
        bias = step.parameter("bias") if self.use_bias else None
        step.record("dense_forward", x, step.parameter("weight"), bias, self.activation, self.alpha, z, out)
        return out, (x, z if keeps_z else out)

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        x, activation = saved
        delta = upstream
        if self.activation != "identity":
            step.record("activation_gradient", activation, self.activation, self.alpha, upstream, delta)
        downstream = upstream
        if need_input_gradient:
            # Before the update changes the weight, and so that an executor may order the two products freely.
            downstream = step.like(x)
            step.record("dense_input_gradient", delta, step.parameter("weight"), downstream)
        if step.trainable:
            step.record("dense_weight_gradient", x, delta, step.gradient("weight"))
        if step.trainable and self.use_bias:
            step.record("bias_gradient", delta, step.gradient("bias"))
        return downstream

    def config(self) -> dict[str, Any]:
        config = {"units": self.units, **super().config()}
        # Only if it is not the default, so that earlier releases can read the files of other networks.
        return config if self.parametrization == "standard" else {**config, "parametrization": self.parametrization}

    def __repr__(self) -> str:
        """The constructor call, without arguments that have their defaults."""
        default = Dense(self.units, self.activation, parametrization=self.parametrization)
        names = ("use_bias", "weight_initializer", "bias_initializer", "l1", "l2", "alpha")
        values = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(default, name)}
        shown = "".join(f", {name}={_short(value)}" for name, value in values.items())
        if self.parametrization != "standard":
            shown += f", parametrization={self.parametrization!r}"
        return f"Dense({self.units}, activation={self.activation!r}{shown}{self._training_text()})"


def _short(value: Any) -> str:
    """Its repr; arrays of initial values only by their shape."""
    return f"<array of shape {value.values.shape}>" if isinstance(value, Given) else repr(value)
