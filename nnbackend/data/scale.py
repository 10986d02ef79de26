"""The factor on a network's inputs, which the first training decides and which then belongs to the network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError, shown
from nnbackend.support.checks import number

__all__ = ["PIXEL_SCALE", "Images", "InputScale", "Inputs", "input_factor", "scaled_by", "warn"]

#: Maps pixels from 0..255 to 0..1.
PIXEL_SCALE = 1 / 255

#: A change of the largest input by this factor or more suggests other units.
_OTHER_UNITS = 50

#: Longest description that is accepted from a file.
_MOST_TEXT = 1000


class Images(np.ndarray):
    """Rows of a data set that are pixels; uint8 rows are scaled although they are flat.

    Slices, selections and copies are Images, too. Results of arithmetic are plain arrays.
    """

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain


@dataclass(frozen=True)
class InputScale:
    """Determines the factor that the gather applies to the inputs.

    Attributes
    ----------
    factor : float or None
        The network's factor; None if neither its author nor a training has decided it.
    input_shape : tuple of int
        Shape of a sample.
    by_dtype : bool
        Whether the dtype alone decides, as it did for the network's training in older versions.
    """

    factor: float | None
    input_shape: tuple[int, ...]
    by_dtype: bool = False

    def of(self, dtype: npt.DTypeLike, images: bool = False) -> float:
        """The factor for inputs of that dtype; `images` says that they are known to be images."""
        if self.factor is not None:
            return self.factor
        return PIXEL_SCALE if self.is_pixels(dtype, images) else 1.0

    def is_pixels(self, dtype: npt.DTypeLike, images: bool = False) -> bool:
        """Whether such inputs are taken for pixels: uint8 in samples with the shape of an image."""
        return np.dtype(dtype) == np.uint8 and (images or self.by_dtype or len(self.input_shape) in (2, 3))

    def warn_if_undecided(self, dtype: npt.DTypeLike, images: bool, high: float | None) -> None:
        """Warn about bytes that could be pixels but are not scaled, or the reverse; `high` is the largest, if known."""
        if self.factor is not None or np.dtype(dtype) != np.uint8 or self.by_dtype:
            return
        if self.is_pixels(dtype, images):
            if not images and high == 1:
                warn(
                    f"x is uint8 and scaled by 1/255 because input_shape {self.input_shape} is an image's, but holds "
                    "only 0 and 1. Create the network with input_scale=1 to leave it as it is; input_scale=1/255 "
                    "avoids this warning"
                )
        else:
            warn(
                f"x is uint8, but input_shape {self.input_shape} is not an image's, so x is not scaled. If x holds "
                "pixels (0 to 255), create the network with input_scale=1/255; otherwise, input_scale=1 avoids this "
                "warning"
            )


@dataclass(frozen=True)
class Inputs:
    """The inputs a network was trained with.

    Attributes
    ----------
    description : str
        For people to read.
    dtype : str
        Name of the dtype.
    low, high : float or None
        Smallest and largest value; None if unknown, because a file or a stream was not read in advance.
    """

    description: str
    dtype: str
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_config(cls, config: Any) -> Inputs | None:
        """Check the entry "inputs" of a configuration; None for a network without training."""
        if config is None:
            return None
        if not isinstance(config, Mapping) or set(config) != {"description", "dtype", "low", "high"}:
            raise InvalidInputError(f"inputs must describe the training inputs, received {shown(config)}")
        for name in ("description", "dtype"):
            # Both may be printed.
            if not isinstance(config[name], str) or len(config[name]) > _MOST_TEXT or not config[name].isprintable():
                raise InvalidInputError(f"inputs: {name} must be a short line, received {shown(config[name])}")
        ends = (None if config[end] is None else number(f"inputs: {end}", config[end]) for end in ("low", "high"))
        return cls(config["description"], config["dtype"], *ends)

    @classmethod
    def of_ranks(cls, parts: Sequence[Inputs]) -> Inputs:
        """The same on all ranks that train a network together, each with its own rows."""
        lows, highs = [part.low for part in parts], [part.high for part in parts]
        return cls(
            parts[0].description,
            parts[0].dtype,
            None if None in lows else min(low for low in lows if low is not None),
            None if None in highs else max(high for high in highs if high is not None),
        )

    @property
    def numbers_predicted(self) -> bool:
        """Whether the targets were numbers and not classes, as :meth:`Targets.describe` says it."""
        return self.description.endswith((" target", " targets"))

    @property
    def fractions(self) -> bool:
        """Whether they were floating point between 0 and 1, as scaled pixels are."""
        if self.low is None or self.high is None:
            return False
        return self.dtype.startswith("float") and self.low >= 0 and self.high <= 1

    def in_same_units(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """uint8 pixels of an image file as the network's training had them: 0 to 255, or 0 to 1."""
        if pixels.dtype != np.uint8 or not self.fractions:
            return pixels
        scaled: npt.NDArray[Any] = pixels / np.float32(255)
        return scaled

    def other_kind(self, dtype: np.dtype[Any]) -> bool:
        """Whether one is floating point and the other is not, so that the units may differ."""
        return self.high is not None and (dtype.kind == "f") != self.dtype.startswith("float")

    def warn_if_other_units(self, dtype: np.dtype[Any], high: float, scale: float) -> None:
        """Warn about inputs that look like the training inputs in other units: pixels as fractions or the reverse."""
        if self.high is None:
            return
        fraction, whole = (high, self.high) if dtype.kind == "f" else (self.high, high)
        if not 0 < fraction <= 1 or whole < _OTHER_UNITS * fraction:
            return
        warn(
            f"x is {dtype.name} up to {high:g}, but the network was trained with {self.dtype} up to {self.high:g}, and "
            f"its inputs are {scaled_by(scale)}, whatever their dtype. Give x in the units of the training"
        )


def input_factor(value: Any, dtype: npt.DTypeLike) -> float:
    """Check an `input_scale`: finite, not 0, and within the range of the network's dtype."""
    factor = number("input_scale", value)
    with np.errstate(all="ignore"):
        converted = float(np.asarray(factor).astype(dtype))
    if converted == 0 or not math.isfinite(converted):
        raise InvalidInputError(
            f"input_scale must not be 0 or infinite in {np.dtype(dtype).name}, received {shown(value)}; "
            "1 leaves the inputs as they are"
        )
    return factor


def scaled_by(scale: float) -> str:
    """In words: "scaled by 1/255", "not scaled"."""
    if scale == 1:
        return "not scaled"
    return "scaled by 1/255" if scale == PIXEL_SCALE else f"scaled by {scale:g}"


def warn(
    message: str | Warning, category: type[Warning] = UserWarning, packages: Collection[str] = ("nnbackend",)
) -> None:
    """Warn at the caller's line outside this package, or these packages."""
    import sys

    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_back.f_globals.get("__name__", "").partition(".")[0] in packages:
        frame, level = frame.f_back, level + 1
    # The frame is the outermost one of these packages.
    warnings.warn(message, category, stacklevel=level + 1)
