"""The default data set."""

from __future__ import annotations

import os
from dataclasses import replace

from nnbackend.datasets.dataset import Dataset
from nnbackend.datasets.mnist import DATA_DIR_VARIABLE, DatasetNotFoundError, mnist
from nnbackend.datasets.packaged import mnist_5k
from nnbackend.errors import DataError

__all__ = ["auto"]


def auto(folder: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """MNIST if it is available, otherwise 5,000 of its digits that need no download.

    Parameters
    ----------
    folder, download
        As for `mnist`.

    Returns
    -------
    Dataset
        Its `name` says which data set it is. For the smaller one, `notice` says why, and how to get all of MNIST.

    Raises
    ------
    DataError
        Neither is available, or the files of MNIST are damaged; damaged files are not replaced by the smaller set.
    """
    try:
        return mnist(folder=folder, download=download)
    except DatasetNotFoundError as error:
        not_found = error
    try:
        smaller = mnist_5k()
    except DataError as error:
        raise DataError(f"{not_found}\nThat data set cannot be loaded either: {error}") from error
    reasons = "".join(f"\n  - {place}" for place in not_found.looked)
    return replace(
        smaller,
        notice=(
            f"Training on 5,000 digits, because the 70,000 of MNIST were not found:{reasons}\n"
            f"To use all of MNIST, set {DATA_DIR_VARIABLE} to the folder with its four files, or go online."
        ),
    )
