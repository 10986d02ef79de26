"""Read the image files of ``nnbackend predict`` as rows of pixels.

Networks for images expect light objects on a dark background, in images of one size. Pictures from cameras and drawing
programs are prepared: composed if they are transparent, inverted if they look dark on light, and scaled. For digits,
this is the preparation of the page of ``nnbackend demo`` (:func:`nnbackend.web.digits.normalise`).
"""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.data.scale import Images, Inputs
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

#: Most pixels of a picture; a camera's has 12 to 24 million. Decoding takes about eight bytes for each.
_MOST_PIXELS = 25_000_000

#: Longest side of a picture while it is prepared, many times that of any network's images.
_LONGEST = 1_000

#: Share of the brightest value below which a pixel of a photograph belongs to the background.
_BACKGROUND = 0.2

#: Least side of images that a flat input is taken for: four numbers are rather features than 2 x 2 pixels.
_LEAST_SIDE = 8

#: Side of the images that digits are normalised to.
_DIGIT_SIDE = 28

Image8 = npt.NDArray[np.uint8]


def read_images(
    path: str,
    shape: tuple[int, ...],
    invert: bool | None = None,
    digits: bool = True,
    note: Callable[[str], None] = lambda text: None,
    trained_with: Inputs | None = None,
) -> npt.NDArray[Any]:
    """Read the images in a file.

    Parameters
    ----------
    path : str
        A picture (PNG, JPEG, BMP, GIF, TIFF, WebP or PPM) of any size, or an IDX file, gzipped or not, with any number
        of images of the network's size.
    shape : tuple of int
        Shape of the network's input.
    invert : bool, optional
        Whether to swap black and white. Default: if a picture has a light background; IDX files are not changed.
    digits : bool
        Whether a network for 28 x 28 pixels was trained on digits like MNIST's. A picture of another size is then
        cropped, scaled and centred by its mass, as those were; otherwise it is scaled as a whole.
    note : callable
        Called with a text that says what was changed in a way that may be wrong.
    trained_with : Inputs, optional
        What the network was trained with.

    Returns
    -------
    (images, pixels) ndarray
        uint8, or the dtype of the IDX file.

    Raises
    ------
    DataError
        The file is missing or not an image, or the picture has too many pixels or a range that is unknown.
    InvalidInputError
        The images do not fit the network's inputs, or cannot be inverted.
    """
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise DataError(f"{path}: cannot be opened: it is a pipe, not a file")
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    pixels = math.prod(shape)
    if start not in (_GZIP, _IDX):
        picture = _read_picture(path)
        _check_pixels(path, trained_with)
        light = _is_light(picture)
        if invert is None and light:
            note(
                f"{path}: it looks dark on a light background, so black and white were swapped; "
                "--no-invert leaves them as they are"
            )
        if light if invert is None else invert:
            picture = _WHITE - picture
        prepared = _prepared(path, picture, shape, digits).reshape(1, pixels)
        _note_blank(path, prepared, note)
        return prepared
    images = read_idx(path)
    if images.ndim < 2 or math.prod(images.shape[1:]) != pixels:
        raise _wrong_size(path, shape, images.shape[1:])
    if invert:
        if images.dtype != np.uint8:
            raise InvalidInputError(f"{path}: --invert needs uint8 pixels (0 to 255), received {images.dtype}")
        images = _WHITE - images
    images = images.reshape(len(images), pixels)
    _note_blank(path, images, note)
    return images.view(Images)


def _check_pixels(path: str, trained_with: Inputs | None) -> None:
    """Refuse a picture for a network that was not trained with pixels between 0 and 255 or between 0 and 1."""
    low, high = (None, None) if trained_with is None else (trained_with.low, trained_with.high)
    if low is not None and high is not None and (low < 0 or high > _WHITE):
        raise InvalidInputError(
            f"{path}: the network was trained with inputs from {low:g} to {high:g}, which are no pixels (0 to 255, or "
            "0 to 1); prepare the rows as for its training, and give them to Network.predict"
        )


def _note_blank(path: str, images: npt.NDArray[Any], note: Callable[[str], None]) -> None:
    """Say which images hold nothing that could be recognised."""
    blank = int((images == images[:, :1]).all(axis=1).sum())
    if blank:
        which = (
            "it is" if len(images) == 1 else f"{blank:,} of its {len(images):,} images {'is' if blank == 1 else 'are'}"
        )
        note(f"{path}: {which} blank (all pixels are alike), and the answer for a blank image means nothing")


def _read_picture(path: str) -> Image8:
    """Read a picture as grey values."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise demo_package_missing(f"reading {path}", "pillow") from error
    try:
        # Pillow warns about large pictures and refuses very large ones. The size is checked before decoding.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=_FORMATS)
        with opened as picture:
            if math.prod(picture.size) > _MOST_PIXELS:
                width, height = picture.size
                raise DataError(
                    f"{path}: a picture may have at most {_MOST_PIXELS:,} pixels, received {width:,} x {height:,}; "
                    "scale it down first"
                )
            if picture.mode == "F" or (picture.mode == "I" and not _is_16_bit(picture)):
                raise DataError(
                    f"{path}: its pixels are 32-bit numbers, of which nothing says how large white is; save it with 8 "
                    "or 16 bits a pixel"
                )
            return _grey(picture)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: not enough memory to decode it") from error
    except Exception as error:
        # Pillow raises a dozen kinds of exception for damaged files, depending on the format.
        unknown = f"it is not in a supported format: {', '.join(_FORMATS)}"
        reason = unknown if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a picture: {reason}") from error


def _is_16_bit(picture: Any) -> bool:
    """Whether integers are those of 16 bits, as Pillow may read PNG files."""
    low, high = picture.getextrema()
    return bool(picture.format == "PNG" and low >= 0 and high < 1 << 16)


def _grey(picture: Any) -> Image8:
    """The picture in grey and upright, on white or black where it is transparent."""
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith("I"):
        # 16-bit grey: Pillow would clip at 255 instead of scaling.
        return (np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8)
    if not picture.has_transparency_data:
        return np.asarray(_reduced(picture.convert("L")))
    layer = _reduced(picture.convert("RGBA"))
    alpha, grey = layer.getchannel("A"), layer.convert("L")
    # Light ink was drawn for a dark background, and dark ink for a light one.
    opacity = np.asarray(alpha, np.float64)
    ink = float((np.asarray(grey) * opacity).sum()) / max(float(opacity.sum()), 1.0)
    background = Image.new("L", layer.size, 0 if ink > _WHITE / 2 or not opacity.any() else _WHITE)
    return np.asarray(Image.composite(grey, background, alpha))


def _reduced(picture: Any) -> Any:
    """The picture, scaled down by a whole factor if its longer side has many more pixels than any network needs."""
    factor = max(picture.size) // _LONGEST
    return picture.reduce(factor) if factor > 1 else picture


def _border(picture: Image8) -> Image8:
    return np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])


def _is_light(picture: Image8) -> bool:
    """Whether the background is light: most of the border, and most of the picture."""
    return bool(np.median(_border(picture)) > _WHITE / 2 and np.median(picture) > _WHITE / 2)


def _prepared(path: str, picture: Image8, shape: tuple[int, ...], digits: bool) -> Image8:
    """An image of the network's size; a picture that has it already is not changed."""
    height, width = _image_size(shape)
    if picture.shape == (height, width):
        return picture
    if not height or picture.size == math.prod(shape):
        # Such as a column of pixels, or an image for a network whose inputs are not one.
        if picture.size != math.prod(shape):
            raise _wrong_size(path, shape, picture.shape)
        return picture
    if digits and (height, width) == (_DIGIT_SIDE, _DIGIT_SIDE):
        from nnbackend.web.digits import normalise

        return normalise(_without_background(picture))
    return _scaled(picture, height, width)


def _image_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the grey images that the network takes; (0, 0) if its inputs are no such images."""
    if len(shape) == 1:
        side = math.isqrt(shape[0])
        return (side, side) if side * side == shape[0] and side >= _LEAST_SIDE else (0, 0)
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        return shape[0], shape[1]
    return 0, 0


def _without_background(picture: Image8) -> Image8:
    """Light strokes with their full brightness on black. A photograph's background is neither black nor even."""
    ground = float(np.quantile(_border(picture), 0.95))
    strokes = np.maximum(picture - ground, 0)
    if not strokes.any():
        return np.zeros_like(picture)
    strokes /= strokes.max()
    if ground:
        strokes[strokes < _BACKGROUND] = 0
    cleaned: Image8 = np.round(_WHITE * strokes).astype(np.uint8)
    return cleaned


def _scaled(picture: Image8, height: int, width: int) -> Image8:
    """The whole picture in an image of another size, with black beside it if its proportions differ."""
    from PIL import Image

    scale = min(height / picture.shape[0], width / picture.shape[1])
    rows, columns = (max(1, round(scale * side)) for side in picture.shape)
    # Averages where it shrinks, without new edges where it grows.
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    image = np.zeros((height, width), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    image[top : top + rows, left : left + columns] = np.asarray(Image.fromarray(picture).resize((columns, rows), how))
    return image


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
