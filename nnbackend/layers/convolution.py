"""Convolutions of images and sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError
from nnbackend.layers.base import LayerStep, Parameter
from nnbackend.layers.dense import Linear
from nnbackend.layers.windows import Placement, Window, image_shape, short
from nnbackend.support.checks import positive_integer

__all__ = ["Conv1D", "Conv2D"]


class Conv2D(Linear):
    """A convolution of images (height, width, channels), followed by an activation.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or (int, int)
        Height and width of the kernels.
    strides : int or (int, int)
        Rows and columns from one window to the next.
    padding : {"valid", "same"}, int, (int, int) or ((int, int), (int, int))
        "valid" adds nothing. "same" adds rows and columns of zeros so that the output has ``ceil(input / strides)`` of
        them, with the extra one at the end as in TensorFlow. Numbers are rows and columns of zeros on both sides, or
        (top, bottom), (left, right).
    dilation_rate : int or (int, int)
        Rows and columns between the elements of a window.
    groups : int
        Divides channels and filters into groups, each of which sees its own channels only. With as many groups as
        channels this is a depthwise convolution.
    activation : str, optional
        A key of :data:`nnbackend.backends.activations.ACTIVATIONS`; "identity" if not given.
    use_bias : bool
    weight_initializer : str, Initializer or array, optional
        For the weight of shape (height, width, channels / groups, filters). If not given, He normal for ReLU and
        similar activations, Glorot uniform otherwise.
    bias_initializer : str, Initializer or (filters,) array
    l1, l2 : float
        ``l1 sum |weight| + l2 / 2 sum weight^2`` is added to the loss.
    alpha : float, optional
        Parameter of leaky ReLU (slope, 0.01) or ELU (1.0).
    trainable : bool
        False freezes weight and bias: training does not change them.
    learning_rate_factor : float
        Multiplies the optimiser's learning rate for weight and bias; above 0.

    Raises
    ------
    InvalidInputError
        A value is out of range, or `filters` is not divisible by `groups`.
    UnknownNameError
        No activation or initialiser has that name.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        *,
        strides: Any = 1,
        padding: Any = "valid",
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        l1: float = 0.0,
        l2: float = 0.0,
        alpha: float | None = None,
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
    ) -> None:
        training = (trainable, learning_rate_factor)
        super().__init__(activation, use_bias, weight_initializer, bias_initializer, l1, l2, alpha, *training)
        self.filters = positive_integer("filters", filters)
        self.window = Window.of("kernel_size", kernel_size, strides, dilation_rate, padding)
        self.groups = positive_integer("groups", groups)
        if self.filters % self.groups:
            raise InvalidInputError(
                f"filters must be a multiple of groups, received filters={self.filters} and groups={self.groups}"
            )

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of the kernels."""
        return self.window.size

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        image = self._image(input_shape)
        if image[2] % self.groups:
            raise InvalidInputError(
                f"{type(self).__name__}: {image[2]} channels cannot be divided into {self.groups} groups of equal size"
            )
        place = self._place(input_shape)
        return place.height, place.width, self.filters

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        channels = self._image(input_shape)[2]
        return self.weight_and_bias((*self.window.size, channels // self.groups, self.filters))

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.buffer(*self.output_shape(step.input_shape))
        keeps_z = ACTIVATIONS[self.activation].saves == "preactivation"
        z = step.like(out) if keeps_z else out
        x = step.reshape(x, self._image(step.input_shape))
        images = step.reshape(z, self._maps(step))
        bias = step.parameter("bias") if self.use_bias else None
        step.record("convolution", x, step.parameter("weight"), bias, *self._geometry(step), images)
        if self.activation != "identity":
            view = self._view_of(step)
            step.record("activation_forward", view(z), self.activation, self.alpha, view(out))
        return out, (x, z)

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        x, activation = saved
        delta = step.channels(upstream)
        if self.activation != "identity":
            view = self._view_of(step)
            gradient = view(upstream)
            step.record("activation_gradient", view(activation), self.activation, self.alpha, gradient, gradient)
        maps = step.reshape(upstream, self._maps(step))
        downstream = upstream
        if need_input_gradient:
            gradient = step.like(x)
            step.record("convolution_input_gradient", maps, step.parameter("weight"), *self._geometry(step), gradient)
            downstream = step.reshape(gradient, step.input_shape)
        if step.trainable:
            step.record("convolution_weight_gradient", x, maps, *self._geometry(step), step.gradient("weight"))
        if step.trainable and self.use_bias:
            step.record("bias_gradient", delta, step.gradient("bias"))
        return downstream

    def _image(self, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The shape of a sample as the operations see it."""
        return image_shape(type(self).__name__, input_shape)

    def _place(self, input_shape: tuple[int, ...]) -> Placement:
        return self.window.place(type(self).__name__, self._image(input_shape))

    def _maps(self, step: LayerStep) -> tuple[int, int, int]:
        place = self._place(step.input_shape)
        return place.height, place.width, self.filters

    def _view_of(self, step: LayerStep) -> Callable[[Array], Array]:
        """How the activation sees images: as a row for each, or, since softmax is over channels, for each position."""
        return step.channels if self.activation == "softmax" else step.matrix

    def _geometry(self, step: LayerStep) -> tuple[int, ...]:
        """The constants of the operations: strides, dilation, top and left."""
        place = self._place(step.input_shape)
        return *self.window.strides, *self.window.dilation, place.top, place.left

    def config(self) -> dict[str, Any]:
        return {
            "filters": self.filters,
            "kernel_size": list(self.window.size),
            **self.window.config(),
            "dilation_rate": list(self.window.dilation),
            "groups": self.groups,
            **super().config(),
        }

    def __repr__(self) -> str:
        groups = "" if self.groups == 1 else f", groups={self.groups}"
        window = self._window_text() + groups + f", activation={self.activation!r}"
        return f"{type(self).__name__}({self.filters}, {window}{self._training_text()})"

    def _window_text(self) -> str:
        return self.window.text(strides=(1, 1))


class Conv1D(Conv2D):
    """A convolution of sequences (length, channels), which is a convolution of images with one row.

    Parameters are those of :class:`Conv2D` with one number each for `kernel_size`, `strides`, `padding` ("valid",
    "same", a number, or (before, after)) and `dilation_rate`. The weight has shape (1, kernel_size, channels / groups,
    filters).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        strides: int = 1,
        padding: Any = "valid",
        dilation_rate: int = 1,
        groups: int = 1,
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        l1: float = 0.0,
        l2: float = 0.0,
        alpha: float | None = None,
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
    ) -> None:
        super().__init__(
            filters,
            (1, positive_integer("kernel_size", kernel_size)),
            strides=(1, positive_integer("strides", strides)),
            padding=padding if isinstance(padding, str) else ((0, 0), padding),
            dilation_rate=(1, positive_integer("dilation_rate", dilation_rate)),
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            weight_initializer=weight_initializer,
            bias_initializer=bias_initializer,
            l1=l1,
            l2=l2,
            alpha=alpha,
            trainable=trainable,
            learning_rate_factor=learning_rate_factor,
        )

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return super().output_shape(input_shape)[1:]

    def _image(self, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
        if len(input_shape) != 2:
            raise InvalidInputError(
                f"Conv1D takes sequences of shape (length, channels), received {input_shape}"
                + (f"; for one channel, pass x[..., None] and input_shape={(*input_shape, 1)}"
                   if len(input_shape) == 1 else "")
            )  # fmt: skip
        return 1, *input_shape

    def _place(self, input_shape: tuple[int, ...]) -> Placement:
        extents = ("sequences of height", "sequences of length")
        return self.window.place(type(self).__name__, self._image(input_shape), extents)

    def config(self) -> dict[str, Any]:
        values = super().config()
        for name in ("kernel_size", "strides", "dilation_rate"):
            values[name] = values[name][1]
        if not isinstance(values["padding"], str):
            values["padding"] = values["padding"][1]
        return values

    def _window_text(self) -> str:
        parts = [str(self.window.size[1])]
        padding = self.window.padding if isinstance(self.window.padding, str) else self.window.padding[1]
        others = {"strides": self.window.strides[1], "padding": padding, "dilation_rate": self.window.dilation[1]}
        parts += [f"{name}={short(value)}" for name, value in others.items() if value not in (1, "valid")]
        return ", ".join(parts)
