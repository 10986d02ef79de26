"""Data sets by name, and readers for IDX, Parquet and HDF5 files.

Importing this package imports only NumPy and little of the standard library. Other packages that a data set needs are
imported when it is loaded.
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

# The module in this package and the function in it that load each data set.
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
    - ``"mnist-5k"``: 4,000 + 1,000 of MNIST's digits; ``"digits"``: 1,797 digits of 8 x 8 pixels; ``"iris"``: 150
      flowers. They are part of packages in the extra ``demo``; a fifth of the rows is the test set.
    - ``"auto"``: ``"mnist"`` if it is available, else ``"mnist-5k"`` with a notice.
    - ``"circle"``: points inside and outside the unit circle; options ``n``, ``seed``.
    - ``"and"``, ``"or"``, ``"not"``, ``"xor"``, ``"ten-points"``, ``"people"``: tables of a few rows; the test set is
      the training set.

    Parameters
    ----------
    name : str
        One of `names`.
    folder : str or path-like, optional
        For ``"auto"``, ``"mnist"`` and ``"fashion-mnist"``: the folder to search first. It contains the files, or a
        subfolder with the name of the data set and the files.
    download : bool
        False forbids downloads. Has no effect on data sets that need no download.
    **options
        Further options of the data set.

    Returns
    -------
    Dataset

    Raises
    ------
    UnknownNameError
        There is no data set of that name.
    InvalidInputError
        The data set has no such option, or its value is invalid.
    DataError
        The files cannot be found or are damaged, or a package is missing; the message says what to do.
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
    """All names that `load` accepts."""
    return tuple(_LOADERS)


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
