"""The positions of windows that slide over images, as numbers and slices: the same for arrays of any library."""

from __future__ import annotations

from collections.abc import Iterator

from nnbackend.backends.arrays import Array

__all__ = ["Pair", "every", "extent", "groups", "image_parts", "overlap", "room"]

#: Two numbers: of rows and of columns of an image.
Pair = tuple[int, int]

#: Elements of the windows that are copied at a time: enough for an efficient product.
_PATCHES = 262_144


def image_parts(out: Array, window: int) -> Iterator[slice]:
    """Slices of the images whose windows, each of `window` elements, have at most `_PATCHES` elements together."""
    rows = out.shape[0]
    length = max(1, _PATCHES // max(1, out.shape[1] * out.shape[2] * window))
    return (slice(begin, min(begin + length, rows)) for begin in range(0, rows, length))


def extent(positions: Pair, size: Pair, steps: Pair, between: Pair) -> Pair:
    """Rows and columns that the windows at all positions cover."""
    (oy, ox), (ky, kx), (sy, sx), (dy, dx) = positions, size, steps, between
    return (oy - 1) * sy + (ky - 1) * dy + 1, (ox - 1) * sx + (kx - 1) * dx + 1


def room(image: Pair, positions: Pair, size: Pair, steps: Pair, between: Pair, before: Pair) -> Pair:
    """Rows and columns of an image with its padding: what the windows cover and what they leave out."""
    covered = extent(positions, size, steps, between)
    return max(covered[0], before[0] + image[0]), max(covered[1], before[1] + image[1])


def overlap(before: int, inner: int, outer: int) -> tuple[slice, slice]:
    """The part of `inner` elements that lies within `outer` ones if the first is at `before`: from where, to where."""
    begin, end = max(before, 0), min(before + inner, outer)
    if begin >= end:
        return slice(0, 0), slice(0, 0)
    return slice(begin - before, end - before), slice(begin, end)


def groups(x: Array, weight: Array) -> Iterator[tuple[slice, slice]]:
    """The channels and the filters of each group."""
    count = x.shape[3] // weight.shape[2]
    filters = weight.shape[3] // count
    for group in range(count):
        yield (
            slice(group * weight.shape[2], (group + 1) * weight.shape[2]),
            slice(group * filters, (group + 1) * filters),
        )


def every(first: int, count: int, step: int) -> slice:
    """`count` indices from `first`, `step` apart."""
    return slice(first, first + (count - 1) * step + 1, step)
