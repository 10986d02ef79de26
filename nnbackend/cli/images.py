"""Images for ``nnbackend predict``: from files to rows of pixels."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.datasets import read_idx
from nnbackend.datasets.extras import demo_package_missing
from nnbackend.errors import DataError, InvalidInputError

__all__ = ["read_images"]

_GZIP = b"\x1f\x8b"
_IDX = b"\x00\x00"
_WHITE = 255


def read_images(path: str, shape: tuple[int, ...], invert: bool) -> npt.NDArray[Any]:
    """The images in a file.

    Parameters
    ----------
    path : str
        A picture (PNG or whatever else pillow reads), or an IDX file of any number of images, gzipped or not.
    shape : tuple of int
        Of the network's input.
    invert : bool
        Swap black and white.

    Returns
    -------
    (images, pixels) ndarray
        uint8, or what an IDX file holds.

    Raises
    ------
    DataError
        The file is missing, or not an image.
    InvalidInputError
        The images do not have as many pixels as the network has inputs, or cannot be inverted.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    images = read_idx(path) if start in (_GZIP, _IDX) else _read_picture(path)[None]
    pixels = int(np.prod(shape))
    if images.ndim < 2 or int(np.prod(images.shape[1:])) != pixels:
        sizes = " x ".join(str(size) for size in images.shape[1:]) or "a single number"
        raise InvalidInputError(f"{path}: images must have {_wanted(shape)}, received {sizes}")
    if invert:
        if images.dtype != np.uint8:
            raise InvalidInputError(f"{path}: --invert is for pixels from 0 to 255, received {images.dtype} numbers")
        images = _WHITE - images
    return images.reshape(len(images), pixels)


def _read_picture(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """A picture as grey values, what is transparent as white."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise demo_package_missing(f"reading {path}", "pillow") from error
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I"):
                # 16 bits of grey, which pillow would cut off at 255 and not scale.
                return (np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8)
            if picture.has_transparency_data:
                layer = picture.convert("RGBA")
                return np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("L"))
            return np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow reports a damaged PNG as any of these.
        reason = "it is no picture pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path}: cannot be read as a picture: {reason}") from error


def _wanted(shape: tuple[int, ...]) -> str:
    """The network's input in words, as a square where it may be one."""
    pixels = int(np.prod(shape))
    side = int(np.sqrt(pixels))
    if len(shape) > 1:
        return f"{' x '.join(str(size) for size in shape)} pixels"
    return f"{pixels} pixels{f' ({side} x {side})' if side * side == pixels else ''}"
