"""Random transformations of images in terms of the array API standard."""

from __future__ import annotations

import math

import numpy as np

from nnbackend.backends.array_api.namespace import Namespace
from nnbackend.backends.array_api.random import uniform_words
from nnbackend.backends.arrays import Array, HostArray
from nnbackend.backends.numpy_augmentation import NumpyAugmentation

__all__ = ["Augmentation"]

_HOST = NumpyAugmentation()


class Augmentation(Namespace):
    """Each operation is its formula in :mod:`nnbackend.backends.augmentation_operations`."""

    def draw_transforms(
        self, chain: Array, height: int, width: int, seed: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        # Six numbers for each image, all of which follow from numbers of the host.
        transforms: HostArray = np.empty(tuple(out.shape))
        numbers = self._numbers(chain), height, width, seed, self._numbers(counter)
        _HOST.draw_transforms(*numbers, transforms, first_row)
        out[...] = self.xp.asarray(transforms, device=self.library.host)

    def draw_displacements(
        self, kernel: Array, alpha: float, seed: int, stream: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        size = math.prod(out.shape[1:])
        step, first = int(self._numbers(counter)[1]), first_row * size
        words = uniform_words(self.xp, self.library.device, out.shape[0] * size, seed, stream, step, first)
        uniform = self.xp.astype(words, self.wide) * 2.0**-31 - 1
        noise = self.xp.reshape(self.xp.astype(uniform, out.dtype), out.shape)
        out[...] = alpha * self._smooth(self._smooth(noise, kernel, 2), kernel, 1)

    def _smooth(self, fields: Array, kernel: Array, axis: int) -> Array:
        """The sum of neighbours along an axis with the weights of the kernel; outside of the fields is 0."""
        taps, extent = kernel.shape[0], fields.shape[axis]
        shape = list(fields.shape)
        shape[axis] = extent + taps - 1
        padded, result = self._zeros(tuple(shape), fields), self._zeros(tuple(fields.shape), fields)
        before = (slice(None),) * axis
        padded[(*before, slice(taps // 2, taps // 2 + extent), ...)] = fields
        for place in range(taps):
            result += kernel[place] * padded[(*before, slice(place, place + extent), ...)]
        return result

    def resample(self, x: Array, transforms: Array | None, displacements: Array | None, out: Array) -> None:
        xp, (height, width) = self.xp, x.shape[1:3]
        y, column = self._range(height, self.wide)[None, :, None], self._range(width, self.wide)[None, None, :]
        if displacements is not None:
            y = y + xp.astype(displacements[..., 0], self.wide)
            column = column + xp.astype(displacements[..., 1], self.wide)
        if transforms is not None:
            maps = self._on_the_device(transforms)
            a, b, c, d, e, f = (maps[:, place][:, None, None] for place in range(6))
            y, column = a * y + b * column + c, d * y + e * column + f
        shape = (x.shape[0], height, width)
        self._interpolate(x, xp.broadcast_to(y, shape), xp.broadcast_to(column, shape), out)

    def _interpolate(self, images: Array, y: Array, x: Array, out: Array) -> None:
        """The images at positions of shape (n, height, width), which may be anywhere."""
        xp, (n, height, width, channels) = self.xp, images.shape
        # One row and column of zeros before, and two after, so that every limited position has four neighbours.
        padded = self._zeros((n, height + 3, width + 3, channels), images)
        padded[:, 1 : height + 1, 1 : width + 1, :] = images
        pixels = xp.reshape(padded, (-1, channels))
        y, x = self._limited(y, height), self._limited(x, width)
        top, left = xp.floor(y), xp.floor(x)
        down, right = xp.astype((y - top)[..., None], out.dtype), xp.astype((x - left)[..., None], out.dtype)
        i, j = xp.astype(top, xp.int64) + 1, xp.astype(left, xp.int64) + 1
        first = (self._range(n, xp.int64)[:, None, None] * (height + 3) + i) * (width + 3) + j

        def pixel(offset: int) -> Array:
            places = xp.reshape(first + offset, (-1,))
            return xp.reshape(xp.take(pixels, places, axis=0), tuple(out.shape))

        upper = (1 - right) * pixel(0) + right * pixel(1)
        lower = (1 - right) * pixel(width + 3) + right * pixel(width + 4)
        out[...] = (1 - down) * upper + down * lower

    def _limited(self, position: Array, extent: int) -> Array:
        """Positions between -1 and `extent`; -1 for NaN."""
        xp = self.xp
        above = xp.where(position > -1, position, xp.full_like(position, -1.0))
        return xp.where(above < extent, above, xp.full_like(above, float(extent)))
