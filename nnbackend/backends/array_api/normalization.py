"""Normalisation in terms of the array API standard. Sums are in float64 where the device has it."""

from __future__ import annotations

from nnbackend.backends.array_api.namespace import Namespace
from nnbackend.backends.arrays import Array

__all__ = ["Normalization"]


class Normalization(Namespace):
    """Each operation is its formula in :mod:`nnbackend.backends.image_operations`."""

    def batch_norm(
        self,
        x: Array,
        scale: Array | None,
        shift: Array | None,
        momentum: float,
        epsilon: float,
        running_mean: Array,
        running_variance: Array,
        statistics: Array,
        out: Array,
    ) -> None:
        astype, dtype = self.xp.astype, x.dtype
        mean, variance = self._moments(x, 0)
        statistics[0, :] = astype(mean, dtype)
        statistics[1, :] = astype(1 / self.xp.sqrt(variance + epsilon), dtype)
        for running, statistic in ((running_mean, mean), (running_variance, variance)):
            running *= momentum
            running += astype((1 - momentum) * statistic, dtype)
        out[...] = (x - statistics[0, :]) * statistics[1, :]
        _scale_and_shift(scale, shift, out)

    def _moments(self, x: Array, axis: int, keepdims: bool = False) -> tuple[Array, Array]:
        """The mean and the variance along an axis, in `wide`."""
        count = x.shape[axis]
        mean = self._sum(x, axis, keepdims=True) / count
        # Differences from the rounded mean need no wide copy of x; their own mean corrects for the rounding.
        centred = x - self.xp.astype(mean, x.dtype)
        rest = self._sum(centred, axis, keepdims=True) / count
        variance = self._sum(centred * centred, axis, keepdims=True) / count - rest * rest
        if keepdims:
            return mean, variance
        return self.xp.squeeze(mean, axis=axis), self.xp.squeeze(variance, axis=axis)

    def batch_norm_gradient(
        self,
        x: Array,
        statistics: Array,
        scale: Array | None,
        upstream: Array,
        scale_gradient: Array | None,
        shift_gradient: Array | None,
        out: Array,
    ) -> None:
        astype, dtype, count = self.xp.astype, x.dtype, x.shape[0]
        mean, inverse = statistics[0, :], statistics[1, :]
        y = (x - mean) * inverse
        sums, products = self._sum(upstream, 0), self._sum(upstream * y, 0)
        if shift_gradient is not None:
            shift_gradient[...] = astype(sums, dtype)
        if scale_gradient is not None:
            scale_gradient[...] = astype(products, dtype)
        y *= astype(products / count, dtype)
        y += astype(sums / count, dtype)
        out[...] = (upstream - y) * (inverse if scale is None else inverse * scale)

    def normalize(
        self,
        x: Array,
        mean: Array | None,
        variance: Array,
        scale: Array | None,
        shift: Array | None,
        epsilon: float,
        out: Array,
    ) -> None:
        inverse = 1 / self.xp.sqrt(self.xp.astype(variance, self.wide) + epsilon)
        out[...] = (x if mean is None else x - mean) * self.xp.astype(inverse, x.dtype)
        _scale_and_shift(scale, shift, out)

    def layer_norm(
        self, x: Array, scale: Array | None, shift: Array | None, epsilon: float, statistics: Array, out: Array
    ) -> None:
        mean, variance = self._moments(x, 1, keepdims=True)
        statistics[:, :1] = self.xp.astype(mean, x.dtype)
        statistics[:, 1:] = self.xp.astype(1 / self.xp.sqrt(variance + epsilon), x.dtype)
        out[...] = (x - statistics[:, :1]) * statistics[:, 1:]
        _scale_and_shift(scale, shift, out)

    def layer_norm_gradient(
        self, x: Array, statistics: Array, scale: Array | None, upstream: Array, out: Array
    ) -> None:
        astype, count = self.xp.astype, x.shape[1]
        mean, inverse = statistics[:, :1], statistics[:, 1:]
        y = (x - mean) * inverse
        g = upstream if scale is None else upstream * scale
        means = self._sum(g, 1, keepdims=True) / count
        y *= astype(self._sum(g * y, 1, keepdims=True) / count, x.dtype)
        y += astype(means, x.dtype)
        out[...] = (g - y) * inverse

    def layer_norm_scale_gradient(self, x: Array, statistics: Array, upstream: Array, scale_gradient: Array) -> None:
        y = (x - statistics[:, :1]) * statistics[:, 1:]
        scale_gradient[...] = self.xp.astype(self._sum(upstream * y, 0), scale_gradient.dtype)


def _scale_and_shift(scale: Array | None, shift: Array | None, out: Array) -> None:
    if scale is not None:
        out *= scale
    if shift is not None:
        out += shift
