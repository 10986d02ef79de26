"""Standardisation of the inputs by the mean and variance of the training data."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from nnbackend.backends.contract import Array, HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.data.scale import Images, InputScale
from nnbackend.errors import InvalidInputError
from nnbackend.initializers import Given
from nnbackend.layers.base import Layer, LayerStep, Parameter

__all__ = ["Normalization"]

#: Elements that are converted to float64 at a time.
_ELEMENTS = 1 << 20


class Normalization(Layer):
    """``(x - mean) / sqrt(variance)`` with the mean and variance of each feature in the training data, as in Keras.

    Make the layer, call :meth:`adapt` with the training data, and begin a network with it: predictions, files and
    exports then standardise their inputs themselves. Features are the last axis of a sample: columns of a table,
    channels of an image. A feature that is constant becomes 0. Mean and variance are state, which training does not
    change; ``network.get_weights()`` has them as ``"layers.0.mean"`` and ``"layers.0.variance"``.

    Parameters
    ----------
    mean, variance : (features,) array_like, optional
        If they are known; both or none of them.
    trainable : bool
        Accepted for consistency; nothing is learned.

    Raises
    ------
    InvalidInputError
        One of the two is missing, they have different shapes, are not finite, or a variance is negative. When the
        network is built: there is no mean yet, or it is that of another number of features.
    """

    def __init__(self, mean: Any = None, variance: Any = None, *, trainable: bool = True) -> None:
        super().__init__(trainable=trainable)
        #: The (features,) float64 statistics; None before `adapt`.
        self.mean: HostArray | None = None
        self.variance: HostArray | None = None
        self._placed = False
        if (mean is None) != (variance is None):
            raise InvalidInputError("Normalization takes both mean and variance, or none of them and adapt(x) later")
        if mean is not None:
            self._set(_vector("mean", mean), _vector("variance", variance))

    def adapt(self, x: Any) -> Self:
        """Take mean and variance of each feature from data.

        Parameters
        ----------
        x : (n, ..., features) array_like
            Usually the training rows. uint8 images are scaled by 1/255, as a network scales them; with another
            `input_scale` of the network, give ``x * input_scale``.

        Returns
        -------
        Normalization
            The layer itself.

        Raises
        ------
        InvalidInputError
            There are no rows, a value is NaN or infinite, or the layer already belongs to a network.
        """
        if self._placed:
            raise InvalidInputError(
                "the layer belongs to a network, whose weights contain its mean and variance; make a new layer and a "
                "new network, or set both with network.set_weights"
            )
        array = as_host_array("x", x)
        if array.ndim < 2 or array.size == 0:
            raise InvalidInputError(f"adapt takes rows of shape (n, ..., features), received shape {array.shape}")
        scale = InputScale(None, array.shape[1:]).of(array.dtype, isinstance(x, Images))
        rows = max(1, _ELEMENTS // max(1, array[:1].size))
        parts = [slice(start, start + rows) for start in range(0, len(array), rows)]
        axes, count = tuple(range(array.ndim - 1)), array.size // array.shape[-1]
        mean = sum(array[part].sum(axis=axes, dtype=np.float64) for part in parts) / count
        squares = (np.square(array[part] - mean).sum(axis=axes) for part in parts)
        variance = sum(squares) / count
        if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
            raise InvalidInputError("x holds NaN, infinite or very large values; remove or replace them")
        self._set(mean * scale, variance * scale**2)
        return self

    def _set(self, mean: HostArray, variance: HostArray) -> None:
        if mean.shape != variance.shape:
            raise InvalidInputError(f"mean and variance must have one shape, received {mean.shape}, {variance.shape}")
        if (variance < 0).any():
            raise InvalidInputError(f"variance must not be negative, received {variance.min():g}")
        self.mean, self.variance = mean, np.where(variance == 0, 1.0, variance)

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        if self.mean is None or self.variance is None:
            raise InvalidInputError(
                "Normalization has no mean and variance yet: call adapt(x) with the training rows before the network "
                "is made, or give mean= and variance="
            )
        if self.mean.shape != input_shape[-1:]:
            raise InvalidInputError(
                f"Normalization has the mean of {len(self.mean)} features, but samples of shape {input_shape} have "
                f"{input_shape[-1]}; adapt it to rows of this shape"
            )
        self._placed = True
        mean, variance = Given(self.mean), Given(self.variance)
        return (
            Parameter("mean", input_shape[-1:], mean, trainable=False),
            Parameter("variance", input_shape[-1:], variance, trainable=False, nonnegative=True),
        )

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.like(x)
        statistics = step.parameter("mean"), step.parameter("variance")
        step.record("normalize", step.channels(x), *statistics, None, None, 0.0, step.channels(out))
        return out, None

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        if need_input_gradient:
            delta = step.channels(upstream)
            step.record("normalize", delta, None, step.parameter("variance"), None, None, 0.0, delta)
        return upstream

    def config(self) -> dict[str, Any]:
        if self.mean is None or self.variance is None:
            return {"mean": None, "variance": None}
        return {"mean": self.mean.tolist(), "variance": self.variance.tolist()}

    def __repr__(self) -> str:
        given = "" if self.mean is None else f"<adapted to {len(self.mean)} features>"
        return f"Normalization({given or self._training_text()[2:]})"


def _vector(name: str, values: Any) -> HostArray:
    array = as_host_array(name, values)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise InvalidInputError(f"{name} must be finite numbers, one for each feature, received shape {array.shape}")
    return array.astype(np.float64)
