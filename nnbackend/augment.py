"""Random transformations of the images of each training batch, for ``fit(augment=[...])``.

They are part of the recorded step. As in dropout, the random numbers depend only on the network's seed, the step and
the place of the image in the batch. So every backend, any number of threads or ranks, and a resumed run train on the
same images. Evaluations and predictions use the images as they are.

Where a pixel of the result comes from a position between pixels, its value is the bilinear interpolation of the four
around it; outside of an image, everything is 0. Consecutive `Shift`, `Rotate`, `Scale` and `Flip`, and an `Elastic`
that follows them, are combined, and the image is interpolated once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnbackend.backends.augmentation_operations import TRANSFORMATIONS
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.support.checks import Plain, above_zero, count, number, seed_number

__all__ = ["Augmentation", "Elastic", "Flip", "Rotate", "Scale", "Shift", "preview"]

#: The kernel of `Elastic` ends at this many standard deviations.
_TRUNCATE = 3


class Augmentation(ABC, Plain):
    """A random transformation of images: `Shift`, `Rotate`, `Scale`, `Flip` or `Elastic`."""

    @property
    @abstractmethod
    def changes(self) -> bool:
        """Whether it changes images at all; a shift by 0 does not."""


class _Affine(Augmentation):
    """A transformation that the operation `draw_transforms` draws."""

    @property
    @abstractmethod
    def _parameters(self) -> tuple[str, float, float]:
        """Its kind and two parameters; see `AugmentationOperations.draw_transforms`."""


class Shift(_Affine):
    """Shift images by a random distance, drawn from a uniform distribution for each axis.

    Like Keras's ``RandomTranslation``, it also shifts by parts of a pixel.

    Parameters
    ----------
    pixels : float or (float, float)
        The largest distance in pixels, at least 0; or the largest one for rows (vertically) and for columns.
    """

    def __init__(self, pixels: float | tuple[float, float]) -> None:
        self.pixels = _one_or_two("pixels", pixels, low=0)

    @property
    def changes(self) -> bool:
        return self.pixels not in (0, (0, 0))

    @property
    def _parameters(self) -> tuple[str, float, float]:
        vertical, horizontal = _both(self.pixels)
        return "shift", vertical, horizontal


class Rotate(_Affine):
    """Rotate images about their centres by a random angle, drawn from a uniform distribution.

    Parameters
    ----------
    degrees : float
        The largest angle, in both directions; at least 0.
    """

    def __init__(self, degrees: float) -> None:
        self.degrees = number("degrees", degrees, low=0)

    @property
    def changes(self) -> bool:
        return self.degrees > 0

    @property
    def _parameters(self) -> tuple[str, float, float]:
        return "rotate", math.radians(self.degrees), 0.0


class Scale(_Affine):
    """Enlarge or shrink images about their centres by a random factor, drawn from a uniform distribution.

    Parameters
    ----------
    factor : float or (float, float)
        The largest difference of the factor from 1, 0 <= factor < 1: 0.1 means factors from 0.9 to 1.1. Or the smallest
        and the largest factor, above 0. Images are enlarged by factors above 1.
    """

    def __init__(self, factor: float | tuple[float, float]) -> None:
        if isinstance(factor, tuple | list):
            low, high = _both(_one_or_two("factor", factor))
            if not 0 < low <= high:
                raise InvalidInputError(
                    f"the two factors must be above 0, the smaller one first, received {shown(factor)}"
                )
            self.factor: float | tuple[float, float] = (low, high)
        else:
            self.factor = number("factor", factor, low=0, high=1, below=True)

    @property
    def changes(self) -> bool:
        return self.factor not in (0, (1, 1))

    @property
    def _parameters(self) -> tuple[str, float, float]:
        if isinstance(self.factor, tuple):
            return "scale", *self.factor
        return "scale", 1 - self.factor, 1 + self.factor


class Flip(_Affine):
    """Flip each image with probability 1/2.

    Parameters
    ----------
    mode : "horizontal" or "vertical"
        "horizontal" exchanges left and right, as Keras's ``RandomFlip("horizontal")`` does.
    """

    def __init__(self, mode: str = "horizontal") -> None:
        if not isinstance(mode, str) or f"flip_{mode}" not in TRANSFORMATIONS:
            raise UnknownNameError("mode", mode, ("horizontal", "vertical"))
        self.mode = mode

    @property
    def changes(self) -> bool:
        return True

    @property
    def _parameters(self) -> tuple[str, float, float]:
        return f"flip_{self.mode}", 0.5, 0.0


class Elastic(Augmentation):
    """Elastic distortions (Simard, Steinkraus and Platt, "Best practices for convolutional neural networks applied to
    visual document analysis", ICDAR 2003).

    Each pixel is displaced vertically and horizontally. The displacements are independent uniform random numbers from
    -1 to 1, smoothed with a Gaussian of standard deviation `sigma` and multiplied by `alpha`. Far from the border their
    standard deviation is about ``alpha / (2 sqrt(3 pi) sigma) = 0.163 alpha / sigma`` pixels; at the border it is
    smaller, because there is no noise outside of the image. ``Elastic(34, 4)`` suits handwritten digits of 28 x 28.

    Parameters
    ----------
    alpha : float
        Factor of the displacements in pixels, at least 0.
    sigma : float
        Standard deviation of the Gaussian in pixels, above 0. The Gaussian is cut off at three standard deviations, or
        at the size of the image, and its weights have the sum 1.
    """

    def __init__(self, alpha: float, sigma: float) -> None:
        self.alpha = number("alpha", alpha, low=0)
        self.sigma = above_zero("sigma", sigma)

    @property
    def changes(self) -> bool:
        return self.alpha > 0

    def kernel(self, longest: int) -> npt.NDArray[np.float64]:
        """The weights of the smoothing along one axis, for images of at most `longest` rows and columns."""
        radius = math.ceil(min(_TRUNCATE * self.sigma, longest))
        with np.errstate(over="ignore", under="ignore"):
            weights: npt.NDArray[np.float64] = np.exp(-0.5 * (np.arange(-radius, radius + 1) / self.sigma) ** 2)
        weights /= weights.sum()
        return weights


#: All augmentations.
_KINDS = (Shift, Rotate, Scale, Flip, Elastic)


class Resampling(NamedTuple):
    """Augmentations that are computed with one interpolation.

    Attributes
    ----------
    chain : list of (int, float, float, int)
        Affine transformations; see `AugmentationOperations.draw_transforms`.
    elastic : Elastic or None
        Follows them.
    stream : int
        Of random numbers for `elastic`.
    """

    chain: list[tuple[int, float, float, int]]
    elastic: Elastic | None = None
    stream: int = 0


def resamplings(augmentations: Sequence[Augmentation]) -> list[Resampling]:
    """The augmentations in groups, each of which needs one interpolation; those that change nothing are left out."""
    groups = [Resampling([])]
    for place, each in enumerate(augmentations):
        # Layers draw from streams that count from 0.
        stream = 2**32 - 1 - place
        if not each.changes:
            continue
        if isinstance(each, Elastic):
            groups[-1:] = [Resampling(groups[-1].chain, each, stream), Resampling([])]
        elif isinstance(each, _Affine):
            kind, p, q = each._parameters
            groups[-1].chain.append((TRANSFORMATIONS.index(kind), p, q, stream))
    return groups if groups[-1].chain else groups[:-1]


def as_augmentations(augment: Any) -> tuple[Augmentation, ...]:
    """The checked argument `augment` of `fit`: one augmentation, or several in the order of their application.

    Raises
    ------
    InvalidInputError
    """
    if isinstance(augment, Augmentation):
        augment = (augment,)
    if not isinstance(augment, list | tuple):
        raise InvalidInputError(
            f"augment must be a list such as [nn.augment.Shift(2), nn.augment.Rotate(10)], received {shown(augment)}"
        )
    for each in augment:
        if not isinstance(each, _KINDS):
            known = ", ".join(kind.__name__ for kind in _KINDS)
            raise InvalidInputError(f"augment must hold {known} of nn.augment, received {shown(each)}")
    return tuple(augment)


def parse_augmentations(text: str) -> tuple[Augmentation, ...]:
    """Augmentations that are described as text, such as "shift=2,rotate=10,scale=0.8:1.2,flip,elastic=34:4".

    Raises
    ------
    InvalidInputError, UnknownNameError
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"augment must be text such as 'shift=2,rotate=10', received {shown(text)}")
    kinds = {kind.__name__.lower(): kind for kind in _KINDS}
    made = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, values = part.partition("=")
        if name not in kinds:
            raise UnknownNameError("augmentation", name, kinds)
        given = [_value(name, value) for value in values.split(":")] if values else []
        if name in ("shift", "scale") and len(given) == 2:
            given = [tuple(given)]
        try:
            made.append(kinds[name](*given))
        except TypeError:
            raise InvalidInputError(
                f"augmentation {part!r} has the wrong number of values; an example with all of them is "
                "shift=2,rotate=10,scale=0.1,flip,elastic=34:4"
            ) from None
    return tuple(made)


def _value(name: str, text: str) -> Any:
    """A number, or the mode of a flip."""
    if name == "flip":
        return text
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(f"augmentation {name!r} takes numbers, received {text!r}") from None


def preview(
    x: npt.ArrayLike, augment: Augmentation | Sequence[Augmentation], seed: int = 0, step: int = 0
) -> npt.NDArray[np.float64]:
    """Augmented images, for pictures and for choosing the settings.

    Parameters
    ----------
    x : (n, height, width) or (n, height, width, channels) array_like
        A batch of images. For a single image, pass ``image[None]``.
    augment : Augmentation or list of Augmentation
        As for `fit`.
    seed, step : int
        A network with this seed would see the same images if `x` were its batch after `step` steps.

    Returns
    -------
    float64 array of the same shape
        In the units of `x`: images of 0 to 255 remain in this range.

    Raises
    ------
    InvalidInputError
    """
    # Imported here because training on other backends does not need it.
    from nnbackend.backends.numpy import NumpyBackend

    groups = resamplings(as_augmentations(augment))
    try:
        given = np.array(x, np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"x must be images of numbers, received {shown(x)}") from None
    if given.ndim not in (3, 4) or not given.size:
        raise InvalidInputError(f"x must be images (n, height, width, channels), received shape {given.shape}")
    counter = np.array([0, count("step", step), 0], np.int64)
    backend, seed = NumpyBackend(), seed_number(seed)
    images = given.reshape(*given.shape[:3], -1)
    rows, height, width, _ = images.shape
    for chain, elastic, stream in groups:
        transforms = fields = None
        if chain:
            transforms = np.empty((rows, 6))
            backend.draw_transforms(np.array(chain, np.float64), height, width, seed, counter, transforms)
        if elastic is not None:
            fields, kernel = np.empty((rows, height, width, 2)), elastic.kernel(max(height, width))
            backend.draw_displacements(kernel, elastic.alpha, seed, stream, counter, fields)
        source, images = images, np.empty_like(images)
        backend.resample(source, transforms, fields, images)
    return images.reshape(given.shape)


def _one_or_two(what: str, value: Any, low: float = -math.inf) -> float | tuple[float, float]:
    """A finite number, or two of them."""
    if not isinstance(value, tuple | list):
        return number(what, value, low=low)
    if len(value) != 2:
        raise InvalidInputError(f"{what} must be one number or two, received {shown(value)}")
    return number(what, value[0], low=low), number(what, value[1], low=low)


def _both(value: float | tuple[float, float]) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (value, value)


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
