"""Patches: the windows of an image as rows of a matrix, laid out a few at a time, so that a product reads them from the
cache.

The window of an output position is one row. Its elements are ordered as those of a kernel: (kernel row, kernel column,
channel of the group). A *run* is a part of a window that is contiguous in the image: a row of the window if it is not
dilated and there is one group, otherwise the channels of one element.
"""

from __future__ import annotations

from nnbackend.backends.numba.jit import internal

__all__ = ["add_patches", "lay_patches", "patch_rows"]

#: Elements of the patches that are laid out at a time; with the kernel they fit into the L2 cache.
_ELEMENTS = 32_768
#: Rows of patches at most: more would not make a product faster.
_ROWS = 256


def patch_rows(inner):
    """Number of patches of this many elements that are laid out at a time: a multiple of a tile's rows."""
    return max(8, min(_ROWS, _ELEMENTS // inner // 8 * 8))


@internal
def lay_patches(
    x, height, width, channels, out_height, out_width, kernel_height, kernel_width, group, group_channels,
    stride_y, stride_x, dilation_y, dilation_x, top, left, first, count, low, high, patches,
):  # fmt: skip
    """``patches[p - first, k - low]`` = element k of the window at position p, for `count` positions from `first`.

    Parameters
    ----------
    x : 1-D array
        All images.
    group : int
        Its channels are the ones that the window contains.
    first, count : int
        Positions of all images, numbered in order.
    low, high : int
        The range of elements k.
    patches : 1-D array
        (count, high - low).
    """
    merged = dilation_x == 1 and group_channels == channels
    runs = 1 if merged else kernel_width
    length = kernel_width * channels if merged else group_channels
    zero = x.dtype.type(0)
    target = 0
    rest, column = divmod(first, out_width)
    image, row = divmod(rest, out_height)
    for _ in range(count):
        for i in range(kernel_height):
            line = row * stride_y + i * dilation_y - top
            inside = 0 <= line < height
            source = (image * height + line) * width
            for run in range(runs):
                k = (i * runs + run) * length
                begin, end = max(low - k, 0), min(high - k, length)
                if begin >= end:
                    continue
                place = column * stride_x + run * dilation_x - left
                # The part of the run within the image.
                if not inside:
                    start, stop = end, end
                elif merged:
                    start = min(max(begin, -place * channels), end)
                    stop = max(min(end, (width - place) * channels), start)
                elif 0 <= place < width:
                    start, stop = begin, end
                else:
                    start, stop = end, end
                origin = (source + place) * channels + group * group_channels
                for _ in range(begin, start):
                    patches[target] = zero
                    target += 1
                for e in range(start, stop):
                    patches[target + e - start] = x[origin + e]
                target += stop - start
                for _ in range(stop, end):
                    patches[target] = zero
                    target += 1
        column += 1
        if column == out_width:
            column = 0
            row += 1
            if row == out_height:
                row = 0
                image += 1


@internal
def add_patches(
    patches, height, width, channels, out_height, out_width, kernel_height, kernel_width, group, group_channels,
    stride_y, stride_x, dilation_y, dilation_x, top, left, first, count, x,
):  # fmt: skip
    """Add patches to the windows that they came from; the parameters are those of `lay_patches`."""
    merged = dilation_x == 1 and group_channels == channels
    runs = 1 if merged else kernel_width
    length = kernel_width * channels if merged else group_channels
    source = 0
    rest, column = divmod(first, out_width)
    image, row = divmod(rest, out_height)
    for _ in range(count):
        for i in range(kernel_height):
            line = row * stride_y + i * dilation_y - top
            if not 0 <= line < height:
                source += runs * length
                continue
            target = (image * height + line) * width
            for run in range(runs):
                place = column * stride_x + run * dilation_x - left
                if merged:
                    start = min(max(0, -place * channels), length)
                    stop = max(min(length, (width - place) * channels), start)
                else:
                    start, stop = 0, length if 0 <= place < width else 0
                origin = (target + place) * channels + group * group_channels
                for e in range(start, stop):
                    x[origin + e] += patches[source + e]
                source += length
        column += 1
        if column == out_width:
            column = 0
            row += 1
            if row == out_height:
                row = 0
                image += 1
