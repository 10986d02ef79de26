"""Galleries of images and of misclassified images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError
from nnbackend.plotting.checks import as_images, check_finite, check_labels, class_names, plain
from nnbackend.plotting.figures import axes_or_new
from nnbackend.plotting.tiles import CAPTION_CHARACTERS, draw_tiles
from nnbackend.support.checks import positive_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_images", "plot_misclassified"]


def plot_images(
    images: Any, titles: Sequence[Any] | None = None, ax: Axes | None = None, columns: int | None = None
) -> Axes:
    """Plot grey images in rows and columns, each with a caption.

    Parameters
    ----------
    images : (n, pixels), (n, height, width) or (n, height, width, 1) array_like
        Numbers of any range; rows of pixels are square images. The lowest number of all is black, the highest white.
    titles : sequence of n texts or numbers, optional
        The captions.
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.
    columns : int, optional
        Number of columns. Default: about twice the number of rows.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        There are no images, they are not finite or have another shape, or the number of titles differs.
    """
    pictures = as_images(images)
    captions = [] if titles is None else [plain(title) for title in titles]
    if titles is not None and len(captions) != len(pictures):
        raise InvalidInputError(f"there are {len(pictures)} images, received {len(captions)} titles; give one for each")
    return _draw_grey(ax, pictures, captions, columns, "")


def plot_misclassified(
    images: Any, true: Any, predicted: Any, classes: Sequence[str] | None = None, ax: Axes | None = None, most: int = 24
) -> Axes:
    """Plot the first misclassified images with their true and predicted classes.

    Parameters
    ----------
    images : (n, pixels), (n, height, width) or (n, height, width, 1) array_like
        Numbers of any range; rows of pixels are square images.
    true, predicted : (n,) array_like of int
        True classes, and the classes from `Network.predict_classes`, as indices.
    classes : sequence of str, optional
        Names of the classes. Default: 0, 1, 2, ...
    ax : Axes, optional
        The Axes to draw on. Default: a new figure.
    most : int
        Largest number of images to draw.

    Returns
    -------
    Axes
        The title counts the misclassified images. If there are none, the Axes contain a note instead of images.

    Raises
    ------
    InvalidInputError
        There are no images, they are not finite or have another shape, the labels are not one class index per image,
        or a class has no name.
    """
    pictures = as_images(images)
    total = len(pictures)
    labels, guesses = check_labels("true", true, total), check_labels("predicted", predicted, total)
    names = class_names(classes, int(max(labels.max(), guesses.max())) + 1)
    most = positive_integer("most", most)
    wrong = np.flatnonzero(labels != guesses)
    score = f"{len(wrong):,} of {total:,} wrong ({100 * len(wrong) / total:.2f} %)"
    if len(wrong) == 0:
        ax = axes_or_new(ax, (4.8, 1.5))
        ax.text(0.5, 0.5, f"all {total:,} are correct", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        ax.set_title(score, fontsize="medium")
        return ax
    shown = wrong[:most]
    pairs = [(names[labels[index]], names[guesses[index]]) for index in shown]
    longest = max(len(f"{label}, taken for {guess}") for label, guess in pairs)
    between = " " if longest <= CAPTION_CHARACTERS else "\n"
    captions = [f"{label},{between}taken for {guess}" for label, guess in pairs]
    title = score if len(shown) == len(wrong) else f"{score}\nthe first {len(shown)}"
    return _draw_grey(ax, pictures[shown], captions, None, title)


def _draw_grey(
    ax: Axes | None, pictures: npt.NDArray[Any], captions: Sequence[str], columns: int | None, title: str
) -> Axes:
    check_finite("images", pictures)
    # Matplotlib does not draw booleans or floats of all sizes.
    grey = pictures.astype(np.float64)
    return draw_tiles(ax, grey, captions, columns, title, cmap="gray", vmin=grey.min(), vmax=grey.max())
