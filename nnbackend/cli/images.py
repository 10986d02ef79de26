"""Read the image files of ``nnbackend predict`` as rows of pixels."""

from __future__ import annotations

import math
import os
import stat
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.data.scale import Images
from nnbackend.datasets import read_idx
from nnbackend.errors import DataError, InvalidInputError
from nnbackend.support.extras import demo_package_missing

__all__ = ["read_images"]

#: Accepted picture formats. Pillow reads many more, some of them by starting other programs (EPS), and each further
#: decoder is one more that an untrusted file could attack.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")

_GZIP = b"\x1f\x8b"
_IDX = b"\x00\x00"
_WHITE = 255


def read_images(path: str, shape: tuple[int, ...], invert: bool) -> npt.NDArray[Any]:
    """Read the images in a file.

    Parameters
    ----------
    path : str
        A picture (PNG, JPEG, BMP, GIF, TIFF, WebP or PPM) or an IDX file, gzipped or not, with any number of images.
    shape : tuple of int
        Shape of the network's input.
    invert : bool
        Swap black and white.

    Returns
    -------
    (images, pixels) ndarray
        uint8, or the dtype of the IDX file.

    Raises
    ------
    DataError
        The file is missing or not an image.
    InvalidInputError
        The images do not have as many pixels as the network has inputs, or cannot be inverted.
    """
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise DataError(f"{path}: cannot be opened: it is a pipe, not a file")
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    pixels = math.prod(shape)
    if start in (_GZIP, _IDX):
        images = read_idx(path)
        if images.ndim < 2 or math.prod(images.shape[1:]) != pixels:
            raise _wrong_size(path, shape, images.shape[1:])
    else:
        images = _read_picture(path, shape)[None]
    if invert:
        if images.dtype != np.uint8:
            raise InvalidInputError(f"{path}: --invert needs uint8 pixels (0 to 255), received {images.dtype}")
        images = _WHITE - images
    return images.reshape(len(images), pixels).view(Images)


def _read_picture(path: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read a picture as grey values, on a white background; decode it only if it has the right size."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise demo_package_missing(f"reading {path}", "pillow") from error
    try:
        # Pillow warns about large pictures and refuses very large ones. The warning is not needed: the size is
        # checked against the network's input before decoding.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=_FORMATS)
        with opened as picture:
            if math.prod(picture.size) != math.prod(shape):
                raise _wrong_size(path, shape, picture.size[::-1])
            return _grey(picture)
    except InvalidInputError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: not enough memory to decode it") from error
    except Exception as error:
        # Pillow raises a dozen kinds of exception for damaged files, depending on the format.
        unknown = f"it is not in a supported format: {', '.join(_FORMATS)}"
        reason = unknown if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a picture: {reason}") from error


def _grey(picture: Any) -> npt.NDArray[np.uint8]:
    from PIL import Image

    if picture.mode.startswith("I"):
        # 16-bit grey: Pillow would clip at 255 instead of scaling.
        return (np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("L"))
    return np.asarray(picture.convert("L"))


def _wrong_size(path: str, shape: tuple[int, ...], received: tuple[int, ...]) -> InvalidInputError:
    sizes = " x ".join(str(size) for size in received) or "a single number"
    return InvalidInputError(f"{path}: images must have {_wanted(shape)}, received {sizes}")


def _wanted(shape: tuple[int, ...]) -> str:
    """The expected size in words; for a flat input also as a square, if the number of pixels is one."""
    pixels = math.prod(shape)
    side = math.isqrt(pixels)
    if len(shape) > 1:
        return f"{' x '.join(str(size) for size in shape)} pixels"
    return f"{pixels} pixels{f' ({side} x {side})' if side * side == pixels else ''}"
