"""The NumPy backend's random transformations of images: the formulas of the contract, for many images at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.augmentation_operations import TRANSFORMATIONS, AugmentationOperations
from nnbackend.backends.philox import block_words, uniform_words

__all__ = ["NumpyAugmentation"]

Real = npt.NDArray[np.floating[Any]]
Int = npt.NDArray[np.integer[Any]]

#: Elements of images that are computed at a time.
_ELEMENTS = 262_144


class NumpyAugmentation(AugmentationOperations):
    """Plain NumPy."""

    def draw_transforms(
        self, chain: Real, height: int, width: int, seed: int, counter: Int, out: Real, first_row: int = 0
    ) -> None:
        count = len(out)
        rows = np.arange(first_row, first_row + count, dtype=np.uint64)
        # From a position relative to the centre to its source.
        linear, offset = np.tile(np.eye(2), (count, 1, 1)), np.zeros((count, 2))
        for kind, p, q, stream in chain:
            words = block_words(rows, seed, int(stream), int(counter[1]))
            inverse, shift = _inverse(TRANSFORMATIONS[int(kind)], p, q, words[:, 0] / 2**32, words[:, 1] / 2**32)
            offset += (linear @ shift[..., None])[..., 0]
            linear = linear @ inverse
        centre = np.array([height - 1, width - 1]) / 2
        out[:, [[0, 1], [3, 4]]] = linear
        out[:, [2, 5]] = offset + centre - linear @ centre

    def draw_displacements(
        self, kernel: Real, alpha: float, seed: int, stream: int, counter: Int, out: Real, first_row: int = 0
    ) -> None:
        size = out[0].size
        for part in _image_parts(out):
            first = (first_row + part.start) * size
            words = uniform_words(out[part].size, seed, stream, int(counter[1]), first)
            noise = (words * 2.0**-31 - 1).astype(out.dtype).reshape(out[part].shape)
            out[part] = alpha * _smooth(_smooth(noise, kernel, 2), kernel, 1)

    def resample(self, x: Real, transforms: Real | None, displacements: Real | None, out: Real) -> None:
        height, width = x.shape[1:3]
        grid = np.stack(np.meshgrid(np.arange(float(height)), np.arange(float(width)), indexing="ij"), axis=-1)
        for part in _image_parts(x):
            images = x[part]
            position = np.broadcast_to(grid, (len(images), *grid.shape))
            if displacements is not None:
                position = position + displacements[part]
            y, column = position[..., 0], position[..., 1]
            if transforms is not None:
                a, b, c, d, e, f = transforms[part].T[:, :, None, None]
                y, column = a * y + b * column + c, d * y + e * column + f
            _interpolate(images, y, column, out[part])


def _inverse(kind: str, p: float, q: float, u: Real, v: Real) -> tuple[Real, Real]:
    """The maps from positions after a transformation to their sources: (n, 2, 2) matrices and (n, 2) shifts."""
    one, zero = np.ones_like(u), np.zeros_like(u)
    a, b, c, d = one, zero, zero, one
    shift = np.stack([zero, zero], axis=-1)
    match kind:
        case "shift":
            shift = -np.stack([p * (2 * u - 1), q * (2 * v - 1)], axis=-1)
        case "rotate":
            angle = p * (2 * u - 1)
            a = d = np.cos(angle)
            b = np.sin(angle)
            c = -b
        case "scale":
            a = d = 1 / (p + (q - p) * u)
        case "flip_horizontal":
            d = np.where(u < p, -one, one)
        case "flip_vertical":
            a = np.where(u < p, -one, one)
    return np.stack([a, b, c, d], axis=-1).reshape(-1, 2, 2), shift


def _smooth(fields: Real, kernel: Real, axis: int) -> Real:
    """The sum of neighbours along an axis with the weights of the kernel; outside of the fields is 0."""
    radius, extent = len(kernel) // 2, fields.shape[axis]
    widths = [(radius, radius) if each == axis else (0, 0) for each in range(fields.ndim)]
    padded = np.pad(fields, widths)
    result = np.zeros_like(fields)
    for place, weight in enumerate(kernel):
        result += weight * padded[(slice(None),) * axis + (slice(place, place + extent),)]
    return result


def _interpolate(images: Real, y: Real, x: Real, out: Real) -> None:
    """The images at positions of shape (n, height, width), which may be anywhere."""
    height, width = images.shape[1:3]
    # One row and column of zeros before, and two after, so that every clipped position has four neighbours.
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0)))
    # Unlike `np.clip`, this makes a number of NaN.
    y, x = np.fmin(np.fmax(y, -1), height), np.fmin(np.fmax(x, -1), width)
    top, left = np.floor(y), np.floor(x)
    down, right = (y - top)[..., None].astype(out.dtype), (x - left)[..., None].astype(out.dtype)
    i, j = top.astype(int) + 1, left.astype(int) + 1
    image = np.arange(len(images))[:, None, None]
    upper = (1 - right) * padded[image, i, j] + right * padded[image, i, j + 1]
    lower = (1 - right) * padded[image, i + 1, j] + right * padded[image, i + 1, j + 1]
    out[...] = (1 - down) * upper + down * lower


def _image_parts(images: Real) -> list[slice]:
    """Consecutive slices of the images with at most `_ELEMENTS` elements, but at least one image."""
    length = max(1, _ELEMENTS * len(images) // max(images.size, 1))
    return [slice(begin, min(begin + length, len(images))) for begin in range(0, len(images), length)]
