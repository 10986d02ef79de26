"""What all groups of operations share: the library's functions, and numbers of the host."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.array_api.host_values import HostValues
from nnbackend.backends.array_api.library import Library
from nnbackend.backends.arrays import Array, HostArray

__all__ = ["Namespace"]


class Namespace:
    """Arrays of one library on one device.

    Attributes
    ----------
    library : Library
    xp : module
        The library's namespace of the array API standard.
    wide : dtype
        The dtype of sums: float64, or float32 on a device without it.
    """

    library: Library
    xp: Any
    wide: Any
    _host: HostValues
    #: Values of arrays in host memory that are still on the device: (array, index, value). See `_store`.
    _pending: list[tuple[Array, Any, Array]]

    def _numbers(self, array: Array) -> HostArray:
        """The values of a small array on the host, to be read only."""
        return self._host.of(array)

    def _zeros(self, shape: tuple[int, ...], like: Array) -> Array:
        return self.xp.zeros(shape, dtype=like.dtype, device=self.library.device)

    def _range(self, size: int, dtype: Any) -> Array:
        """0, ..., `size` - 1."""
        return self.xp.arange(size, dtype=dtype, device=self.library.device)

    def _sum(self, array: Array, axis: int | None = None, keepdims: bool = False) -> Array:
        """The sum in `wide`."""
        return self.xp.sum(array, axis=axis, dtype=self.wide, keepdims=keepdims)

    def _finish(
        self,
        losses: Array,
        correct: Array,
        delta: Array,
        weights: Array | None,
        factor: float,
        gradient: Array,
        row_losses: Array,
    ) -> None:
        """Write a loss and its gradient, with sample weights, and the gradient scaled for a mean."""
        if weights is not None:
            losses, delta = losses * weights, delta * weights[:, None]
        gradient[...] = delta * factor
        row_losses[0, :] = losses
        row_losses[1, :] = self.xp.astype(correct, row_losses.dtype)

    def _store(self, out: Array, index: Any, value: Array) -> None:
        """``out[index] = value`` for a float64 array, which may be in host memory: then it is written as soon as it is
        read, so that the device need not be waited for."""
        if self.library.has_float64:
            out[index] = self.xp.astype(value, out.dtype)
        else:
            self._pending.append((out, index, value))

    def _latest(self, array: Array) -> Array:
        raise NotImplementedError

    def _on_the_device(self, array: Array) -> Array:
        raise NotImplementedError

    def _one_hot(self, labels: Array, like: Array) -> Array:
        """The rows of the identity matrix that belong to labels."""
        classes = self._range(like.shape[1], labels.dtype)
        return self.xp.astype(labels[:, None] == classes[None, :], like.dtype)
