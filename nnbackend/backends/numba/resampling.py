"""Jitted kernels of random transformations of images. Arrays of images and fields are flat: (rows, height, width,
channels). `begin` and `end` are the range of rows of the batch."""

from __future__ import annotations

import math

import numpy as np

from nnbackend.backends.augmentation_operations import TRANSFORMATIONS
from nnbackend.backends.numba.jit import as_written, internal_as_written
from nnbackend.backends.numba.philox import philox

__all__ = ["draw_displacements", "draw_transforms", "field_sizes", "padded_size", "resample"]

_SHIFT, _ROTATE, _SCALE, _FLIP_HORIZONTAL = (
    TRANSFORMATIONS.index(name) for name in ("shift", "rotate", "scale", "flip_horizontal")
)


@internal_as_written
def _inverse(kind, p, q, u, v):
    """The map from a position after a transformation to its source: a 2 x 2 matrix and a shift."""
    if kind == _SHIFT:
        return 1.0, 0.0, 0.0, 1.0, -p * (2.0 * u - 1.0), -q * (2.0 * v - 1.0)
    if kind == _ROTATE:
        angle = p * (2.0 * u - 1.0)
        cosine, sine = math.cos(angle), math.sin(angle)
        return cosine, sine, -sine, cosine, 0.0, 0.0
    if kind == _SCALE:
        inverse = 1.0 / (p + (q - p) * u)
        return inverse, 0.0, 0.0, inverse, 0.0, 0.0
    side = -1.0 if u < p else 1.0
    if kind == _FLIP_HORIZONTAL:
        return 1.0, 0.0, 0.0, side, 0.0, 0.0
    return side, 0.0, 0.0, 1.0, 0.0, 0.0


@as_written
def draw_transforms(chain, height, width, seed, step, out, first_row, begin, end):
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    unit = 1.0 / 4294967296.0
    centre_y, centre_x = (height - 1) / 2.0, (width - 1) / 2.0
    for n in range(begin, end):
        a, b, c, d, ty, tx = 1.0, 0.0, 0.0, 1.0, 0.0, 0.0
        for k in range(chain.shape[0]):
            words = philox(first_row + n, np.int64(chain[k, 3]), step, key0, key1)
            u, v = np.float64(words[0]) * unit, np.float64(words[1]) * unit
            p, q, r, s, sy, sx = _inverse(np.int64(chain[k, 0]), chain[k, 1], chain[k, 2], u, v)
            ty, tx = ty + a * sy + b * sx, tx + c * sy + d * sx
            a, b, c, d = a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s
        out[n, 0], out[n, 1], out[n, 2] = a, b, ty + centre_y - (a * centre_y + b * centre_x)
        out[n, 3], out[n, 4], out[n, 5] = c, d, tx + centre_x - (c * centre_y + d * centre_x)


def field_sizes(height: int, width: int, taps: int) -> tuple[int, int]:
    """Elements of the temporary memory of `draw_displacements`: a field with zeros on the left and right, and one with
    zeros above and below."""
    around = 2 * (taps // 2)
    return 2 * height * (width + around), 2 * (height + around) * width


@as_written
def draw_displacements(kernel, alpha, seed, stream, step, height, width, out, noise, rows, first_row, begin, end):
    """`noise` and `rows` are temporary memory; see `field_sizes`."""
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    margin, line = 2 * (kernel.size // 2), 2 * width
    wide = line + 2 * margin
    zero = kernel.dtype.type(0)
    noise[:] = zero
    rows[:] = zero
    for n in range(begin, end):
        first = (first_row + n) * height * line
        for y in range(height):
            left = y * wide + margin
            _draw_noise(noise[left : left + line], first + y * line, stream, step, key0, key1)
            top = (y + margin // 2) * line
            _weighted_sum(kernel, noise[y * wide :], 2, rows[top : top + line])
        for y in range(height):
            place = (n * height + y) * line
            target = out[place : place + line]
            _weighted_sum(kernel, rows[y * line :], line, target)
            for element in range(line):
                target[element] *= alpha


@internal_as_written
def _weighted_sum(kernel, source, step, target):
    """Parts of the source that begin `step` elements apart, times the weights of the kernel."""
    for element in range(target.size):
        target[element] = kernel[0] * source[element]
    # Four at a time, so that the target is read and written less often.
    for k in range(1, kernel.size - 3, 4):
        w0, w1, w2, w3 = kernel[k], kernel[k + 1], kernel[k + 2], kernel[k + 3]
        s0, s1, s2, s3 = (
            source[k * step :],
            source[(k + 1) * step :],
            source[(k + 2) * step :],
            source[(k + 3) * step :],
        )
        for element in range(target.size):
            target[element] += (w0 * s0[element] + w1 * s1[element]) + (w2 * s2[element] + w3 * s3[element])
    for k in range(kernel.size - (kernel.size - 1) % 4, kernel.size):
        weight, part = kernel[k], source[k * step :]
        for element in range(target.size):
            target[element] += weight * part[element]


@internal_as_written
def _draw_noise(noise, first, stream, step, key0, key1):
    """Numbers from -1 to 1, beginning at element `first` of the stream."""
    last = first + noise.size
    for block in range(first // 4, (last + 3) // 4):
        words = philox(block, stream, step, key0, key1)
        # A row may begin or end within a block.
        if first <= 4 * block and 4 * block + 4 <= last:
            place = 4 * block - first
            noise[place] = _symmetric(words[0])
            noise[place + 1] = _symmetric(words[1])
            noise[place + 2] = _symmetric(words[2])
            noise[place + 3] = _symmetric(words[3])
        else:
            for k in range(4):
                if first <= 4 * block + k < last:
                    noise[4 * block + k - first] = _symmetric(words[k])


@internal_as_written
def _symmetric(word):
    return np.float64(word) * (1.0 / 2147483648.0) - 1.0


def padded_size(height: int, width: int, channels: int) -> int:
    """Elements of an image with a row and a column of zeros before, and two of each after it."""
    return (height + 3) * (width + 3) * channels


@as_written
def resample(
    x, height, width, channels, transforms, displacements, out, padded, places, down, right, begin, end,
):  # fmt: skip
    """Without transforms or displacements, their array is empty. Temporary memory: `padded` for an image with zeros
    around it; `places`, `down` and `right` for a row of positions."""
    size, line = height * width * channels, (width + 3) * channels
    padded[:] = x.dtype.type(0)
    a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0
    for n in range(begin, end):
        for i in range(height):
            target, source = (i + 1) * line + channels, n * size + i * width * channels
            _copy(x[source : source + width * channels], padded[target : target + width * channels])
        if transforms.size:
            a, b, c = transforms[6 * n], transforms[6 * n + 1], transforms[6 * n + 2]
            d, e, f = transforms[6 * n + 3], transforms[6 * n + 4], transforms[6 * n + 5]
        for i in range(height):
            pixel = (n * height + i) * width
            moved = displacements[2 * pixel : 2 * (pixel + width)] if displacements.size else displacements
            _locate(
                height, width, channels, a, b, c + a * i, d, e, f + d * i, moved, places, down, right,
            )  # fmt: skip
            _interpolate(padded, line, channels, places, down, right, out[pixel * channels :])


@internal_as_written
def _copy(source, target):
    for place in range(source.size):
        target[place] = source[place]


@internal_as_written
def _locate(height, width, channels, a, b, c, d, e, f, moved, places, down, right):
    """Find the sources of a row of pixels, whose transforms have the row's number in `c` and `f`.

    For each, `places` receives the first element of the upper left of the four pixels around it in the padded image,
    and `down` and `right` the distances from there.
    """
    kind, line = down.dtype.type, (width + 3) * channels
    # In the padded image, whose first row and column are zeros.
    c, f, last_y, last_x = c + 1.0, f + 1.0, height + 1.0, width + 1.0
    for j in range(width):
        y, x = c + b * j, f + e * j
        if moved.size:
            dy, dx = np.float64(moved[2 * j]), np.float64(moved[2 * j + 1])
            y, x = y + (a * dy + b * dx), x + (d * dy + e * dx)
        y, x = _within(y, last_y), _within(x, last_x)
        # Neither is negative, so this rounds down.
        top, left = np.int32(y), np.int32(x)
        down[j], right[j] = kind(y - top), kind(x - left)
        places[j] = np.int64(top) * line + np.int64(left) * channels


@internal_as_written
def _within(position, last):
    """The nearest position with four pixels in the padded image; 0 for NaN."""
    position = position if position > 0.0 else 0.0
    return position if position < last else last


@internal_as_written
def _interpolate(padded, line, channels, places, down, right, out):
    one = padded.dtype.type(1)
    # Unsigned, so that Numba does not check for negative indices.
    count, below, place_type = np.uint64(channels), np.uint64(line), np.uint64
    for j in range(places.size):
        for k in range(count):
            place = place_type(places[j]) + k
            upper = (one - right[j]) * padded[place] + right[j] * padded[place + count]
            lower = (one - right[j]) * padded[place + below] + right[j] * padded[place + below + count]
            out[np.uint64(j) * count + k] = (one - down[j]) * upper + down[j] * lower
