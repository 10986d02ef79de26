"""The set to take when the user named none."""

from __future__ import annotations

import os
from dataclasses import replace

from nnbackend.datasets.dataset import Dataset
from nnbackend.datasets.mnist import DATA_DIR_VARIABLE, DatasetNotFoundError, mnist
from nnbackend.datasets.packaged import mnist_5k
from nnbackend.errors import DataError

__all__ = ["auto"]


def auto(folder: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """MNIST if it is or can be had, else the 5,000 of its digits that need no download.

    Parameters
    ----------
    folder, download
        As for `mnist`.

    Returns
    -------
    Dataset
        Its `name` says which it is; for the smaller one, `notice` says why, and how to get the whole.

    Raises
    ------
    DataError
        Neither can be had; or MNIST is there and damaged, which is no reason to go on with another set.
    """
    try:
        return mnist(folder=folder, download=download)
    except DatasetNotFoundError as error:
        not_found = error
    try:
        smaller = mnist_5k()
    except DataError as error:
        raise DataError(f"{not_found}\nHere that set cannot be loaded either: {error}") from error
    reasons = "".join(f"\n  - {place}" for place in not_found.looked)
    return replace(
        smaller,
        notice=(
            f"Training on 5,000 digits, not on the 70,000 of MNIST, which were not found:{reasons}\n"
            f"For all of them set {DATA_DIR_VARIABLE} to the folder with MNIST's four files, or go online."
        ),
    )
