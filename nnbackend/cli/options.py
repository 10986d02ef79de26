"""Options that several commands share, and parsers for option values."""

from __future__ import annotations

import argparse
import os

from nnbackend.datasets import Dataset, load, names
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.presets import Recipe

__all__ = [
    "add_backend",
    "add_data",
    "add_encoding",
    "check_data",
    "check_images",
    "decimal",
    "load_data",
    "sizes",
    "whole",
]

#: Data sets read from files in a folder; the others come with packages or are generated.
_IN_FOLDERS = ("auto", "mnist", "fashion-mnist")

#: Data sets of images.
_IMAGES = (*_IN_FOLDERS, "mnist-5k", "digits")

#: How the names of tables end.
_TABLES = (".csv", ".tsv", ".parquet", ".npz", ".npy", ".h5", ".hdf5", ".json", ".xlsx")


def whole(text: str) -> int:
    """Parse an integer."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, received {text!r}") from None


def decimal(text: str) -> float:
    """Parse a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, received {text!r}") from None


def sizes(text: str) -> tuple[int, ...]:
    """Parse layer sizes: ``"200,80"`` or ``"none"``."""
    if text == "none":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        message = f"must be sizes separated by commas, such as 200,80, or 'none', received {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def add_backend(parser: argparse._ActionsContainer) -> None:
    """Declare ``--backend``."""
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="numpy, numba, cupy, torch, or auto for the fastest of the first three that can run here (default: auto)",
    )


def add_data(parser: argparse._ActionsContainer, default: str | None, meaning: str) -> None:
    """Declare ``--dataset``, ``--data-dir`` and ``--no-download``."""
    parser.add_argument("--dataset", default=default, metavar="NAME", help=f"{', '.join(names())} ({meaning})")
    parser.add_argument(
        "--data-dir",
        metavar="FOLDER",
        help="folder with the files of mnist or fashion-mnist, searched before "
        "the folder that NNBACKEND_DATA_DIR names and the cache",
    )
    parser.add_argument("--no-download", action="store_true", help="do not download data sets")


def add_encoding(parser: argparse._ActionsContainer) -> None:
    """Declare ``--encoding``."""
    parser.add_argument("--encoding", metavar="NAME", help="of a CSV file (default: utf-8)")


def check_data(name: str, folder: str | None) -> None:
    """Check the choice of data set before anything is loaded.

    Raises
    ------
    UnknownNameError
        There is no such data set.
    InvalidInputError
        A file was given, or a folder was given for a data set that is not read from one.
    """
    if name not in names():
        if os.path.exists(name) or name.lower().endswith(_TABLES):
            raise InvalidInputError(
                f"--dataset takes the name of a data set, received the file {name!r}; train on a table with nnbackend "
                f"train {name} --target COLUMN. Names are {', '.join(names())}"
            )
        raise UnknownNameError("data set", name, names())
    if folder is not None and name not in _IN_FOLDERS:
        raise InvalidInputError(
            f"--data-dir is for the data sets {', '.join(_IN_FOLDERS)}; {name!r} is not read from a folder"
        )


def check_images(name: str, recipe: Recipe) -> None:
    """Check that the data set has images if the recipe needs them: four features could be an image of 2 x 2.

    Raises
    ------
    InvalidInputError
    """
    options = [option for option, value in (("--filters", recipe.filters), ("--augment", recipe.augment)) if value]
    if options and name not in _IMAGES:
        raise InvalidInputError(
            f"{' and '.join(options)} need{'s' if len(options) == 1 else ''} images, and the data set {name!r} has "
            f"none; choose one of {', '.join(_IMAGES)}"
        )


def load_data(name: str, options: argparse.Namespace) -> Dataset:
    """Load the data set that the options name."""
    return load(name, folder=options.data_dir, download=not options.no_download)
