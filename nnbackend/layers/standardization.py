"""Standardisation of the inputs by the mean and variance of the training data."""

from __future__ import annotations

from typing import Any, Self

from nnbackend.backends.contract import Array, HostArray
from nnbackend.data.statistics import checked_statistics, feature_statistics
from nnbackend.errors import InvalidInputError
from nnbackend.initializers import Given
from nnbackend.layers.base import Layer, LayerStep, Parameter

__all__ = ["Normalization"]


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
            self.mean, self.variance = checked_statistics(mean, variance)

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
        self.mean, self.variance = feature_statistics(x)
        return self

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
            Parameter("variance", input_shape[-1:], variance, trainable=False, positive=True),
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
