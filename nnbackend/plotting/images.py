"""Galleries of images, and of those that a network took for something else."""

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
    """Grey images in rows and columns, each with a short text below.

    Parameters
    ----------
    images : (n, pixels) or (n, height, width) array_like
        Of any numbers; rows of pixels are square images. The lowest number of all is black, the highest white.
    titles : sequence of n texts or numbers, optional
    ax : Axes, optional
        Where to draw; a new figure if not given.
    columns : int, optional
        Images side by side; about twice as many as rows if not given.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidInputError
        The images are none, not finite or of another shape, or there is not one title for each.
    """
    pictures = as_images(images)
    captions = [] if titles is None else [plain(title) for title in titles]
    if titles is not None and len(captions) != len(pictures):
        raise InvalidInputError(f"there are {len(pictures)} images, received {len(captions)} titles; give one for each")
    return _draw_grey(ax, pictures, captions, columns, "")


def plot_misclassified(
    images: Any, true: Any, predicted: Any, classes: Sequence[str] | None = None, ax: Axes | None = None, most: int = 24
) -> Axes:
    """The first images whose predicted class is not the true one, each with both.

    Parameters
    ----------
    images : (n, pixels) or (n, height, width) array_like
        Of any numbers; rows of pixels are square images.
    true, predicted : (n,) array_like of int
        Index of each image's class, and of the class that `Network.predict_classes` gave it.
    classes : sequence of str, optional
        Names of the classes; 0, 1, 2, ... if not given.
    ax : Axes, optional
        Where to draw; a new figure if not given.
    most : int
        How many to draw at most.

    Returns
    -------
    Axes
        Its title says how many were wrong. If none was, so do the Axes.

    Raises
    ------
    InvalidInputError
        The images are none, not finite or of another shape, the labels are no class indices or not one for each
        image, or a class has no name.
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
        ax.text(0.5, 0.5, f"all {total:,} are right", ha="center", va="center", transform=ax.transAxes)
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
    # Matplotlib draws neither booleans nor every width of floats.
    grey = pictures.astype(np.float64)
    return draw_tiles(ax, grey, captions, columns, title, cmap="gray", vmin=grey.min(), vmax=grey.max())
