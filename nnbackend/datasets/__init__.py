"""Data sets by name, and the IDX files that MNIST and its kin come in.

Importing this package imports NumPy and little of the standard library; what a data set needs beyond that is
imported when the set is loaded.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from nnbackend.datasets.dataset import Dataset
from nnbackend.datasets.idx import read_idx, write_idx
from nnbackend.datasets.tables import open_hdf5, read_parquet, stream_parquet
from nnbackend.errors import InvalidInputError, UnknownNameError

__all__ = ["Dataset", "load", "names", "open_hdf5", "read_idx", "read_parquet", "stream_parquet", "write_idx"]

# Module of this package and function in it that load the set.
_LOADERS = {
    "auto": ("auto", "auto"),
    "mnist": ("mnist", "mnist"),
    "fashion-mnist": ("mnist", "fashion_mnist"),
    "mnist-5k": ("packaged", "mnist_5k"),
    "digits": ("packaged", "digits"),
    "iris": ("packaged", "iris"),
    "circle": ("toy", "circle"),
    "and": ("toy", "logical_and"),
    "or": ("toy", "logical_or"),
    "not": ("toy", "logical_not"),
    "xor": ("toy", "logical_xor"),
    "ten-points": ("toy", "ten_points"),
    "people": ("toy", "people"),
}


def load(name: str, *, folder: str | os.PathLike[str] | None = None, download: bool = True, **options: Any) -> Dataset:
    """Load a data set by name.

    - ``"mnist"``, ``"fashion-mnist"``: 60,000 + 10,000 images of 28 x 28 pixels; found on this machine or downloaded.
    - ``"mnist-5k"``: 4,000 + 1,000 of MNIST's digits; ``"digits"``: 1,797 digits of 8 x 8; ``"iris"``: 150 flowers.
      They come inside packages of the extra ``demo``; a fifth is for testing.
    - ``"auto"``: ``"mnist"`` if it is or can be had, else ``"mnist-5k"`` with a notice.
    - ``"circle"``: points inside and outside the unit circle; options ``n``, ``seed``.
    - ``"and"``, ``"or"``, ``"not"``, ``"xor"``, ``"ten-points"``, ``"people"``: tables of a few rows; the test set is
      the training set.

    Parameters
    ----------
    name : str
        One of `names`.
    folder : str or path-like, optional
        Where to look first for ``"auto"``, ``"mnist"`` and ``"fashion-mnist"``: a folder that holds the files, or
        that has a subfolder of the set's name which does.
    download : bool
        False: never touch the network. Nothing to sets that need no download.
    **options
        What the set has beyond that.

    Returns
    -------
    Dataset

    Raises
    ------
    UnknownNameError
        No set has that name.
    InvalidInputError
        The set has no such option, or the option has no such value.
    DataError
        The files are nowhere to be had, or damaged, or a package is missing; the message says what to do.
    """
    if str(name) not in _LOADERS:
        raise UnknownNameError("data set", name, _LOADERS)
    module, function = _LOADERS[str(name)]
    loader: Callable[..., Dataset] = getattr(import_module(f"nnbackend.datasets.{module}"), function)
    accepted = inspect.signature(loader).parameters
    if folder is not None and not os.path.isdir(folder):
        raise InvalidInputError(f"folder must be a folder that exists, received {os.fspath(folder)!r}")
    if folder is not None:
        options["folder"] = folder
    if "download" in accepted:
        options["download"] = download
    unknown = [option for option in options if option not in accepted]
    if unknown:
        known = ", ".join(accepted) or "none"
        raise InvalidInputError(f"data set {name!r} has no option {unknown[0]!r}; it has: {known}")
    return loader(**options)


def names() -> tuple[str, ...]:
    """All names that `load` takes."""
    return tuple(_LOADERS)
