"""Pooling: each channel of a window becomes one number."""

from __future__ import annotations

from typing import Any, ClassVar

from nnbackend.backends.contract import Array
from nnbackend.layers.base import Layer, LayerStep
from nnbackend.layers.windows import Placement, Window, image_shape

__all__ = ["AveragePool2D", "GlobalAveragePool2D", "GlobalMaxPool2D", "L2Pool2D", "MaxPool2D"]


class _Pool(Layer):
    """Records a pool; subclasses say which and where."""

    #: As the operation names it.
    pool: ClassVar[str]

    def _window(self, input_shape: tuple[int, ...]) -> Window:
        raise NotImplementedError

    def _place(self, input_shape: tuple[int, ...]) -> Placement:
        return self._window(input_shape).place(type(self).__name__, input_shape)

    def _geometry(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        window, place = self._window(input_shape), self._place(input_shape)
        return *window.size, *window.strides, place.top, place.left

    def _pooled_shape(self, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
        place = self._place(input_shape)
        return place.height, place.width, input_shape[2]

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._pooled_shape(input_shape)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        pooled = step.buffer(*self._pooled_shape(step.input_shape))
        step.record("pool", x, self.pool, *self._geometry(step.input_shape), pooled)
        return step.reshape(pooled, self.output_shape(step.input_shape)), (x, pooled)

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        if not need_input_gradient:
            return upstream
        x, pooled = saved
        gradient = step.like(x)
        upstream = step.reshape(upstream, self._pooled_shape(step.input_shape))
        step.record("pool_gradient", x, pooled, upstream, self.pool, *self._geometry(step.input_shape), gradient)
        return gradient


class _WindowPool(_Pool):
    """A pool whose window is given."""

    def __init__(
        self, pool_size: Any = 2, strides: Any = None, *, padding: Any = "valid", trainable: bool = True
    ) -> None:
        super().__init__(trainable=trainable)
        self.window = Window.of("pool_size", pool_size, strides, 1, padding)
        self.window.check_pool()

    def _window(self, input_shape: tuple[int, ...]) -> Window:
        return self.window

    def config(self) -> dict[str, Any]:
        return {"pool_size": list(self.window.size), **self.window.config()}

    def __repr__(self) -> str:
        frozen = "" if self.trainable else ", trainable=False"
        return f"{type(self).__name__}({self.window.text(strides=self.window.size)}{frozen})"


class MaxPool2D(_WindowPool):
    """The largest value of each window and channel; its gradient goes to the first of equals.

    Parameters
    ----------
    pool_size : int or (int, int)
        Height and width of the window.
    strides : int or (int, int), optional
        Rows and columns from one window to the next; `pool_size` if not given.
    padding : {"valid", "same"}, int, (int, int) or ((int, int), (int, int))
        As in :class:`Conv2D`. Padding is never the largest value. It must be smaller than the window.
    trainable : bool
        Accepted for consistency; the layer has no parameters.
    """

    pool = "max"


class AveragePool2D(_WindowPool):
    """The mean of each window and channel, without the padding. Parameters as for :class:`MaxPool2D`."""

    pool = "average"


class L2Pool2D(_WindowPool):
    """The square root of the sum of squares of each window and channel; the gradient at 0 is 0.

    Parameters as for :class:`MaxPool2D`.
    """

    pool = "l2"


class _GlobalPool(_Pool):
    """A pool over whole images."""

    def _window(self, input_shape: tuple[int, ...]) -> Window:
        height, width, _ = image_shape(type(self).__name__, input_shape)
        return Window((height, width), (1, 1), (1, 1), "valid")

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self._pooled_shape(input_shape)[2],)


class GlobalAveragePool2D(_GlobalPool):
    """The mean of each channel: (height, width, channels) -> (channels,)."""

    pool = "average"


class GlobalMaxPool2D(_GlobalPool):
    """The largest value of each channel: (height, width, channels) -> (channels,)."""

    pool = "max"
