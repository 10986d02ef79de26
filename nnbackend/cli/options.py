"""Options that several commands share, and how values are read."""

from __future__ import annotations

import argparse

from nnbackend.datasets import Dataset, load, names
from nnbackend.errors import InvalidInputError, UnknownNameError

__all__ = ["add_backend", "add_data", "check_data", "decimal", "load_data", "sizes", "whole"]

#: Data sets that are files in a folder; all others come inside packages or are made.
_IN_FOLDERS = ("auto", "mnist", "fashion-mnist")


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, received {text!r}") from None


def decimal(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, received {text!r}") from None


def sizes(text: str) -> tuple[int, ...]:
    """Layer sizes: ``"200,80"``, or ``"none"``."""
    if text == "none":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        message = f"must be sizes with commas between them, such as 200,80, or none, received {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def add_backend(parser: argparse._ActionsContainer) -> None:
    """--backend"""
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="numpy, numba, cupy, or auto: the fastest that can run here (default: auto)",
    )


def add_data(parser: argparse._ActionsContainer, default: str | None, meaning: str) -> None:
    """--dataset, --data-dir and --no-download"""
    parser.add_argument("--dataset", default=default, metavar="NAME", help=f"{', '.join(names())} ({meaning})")
    parser.add_argument(
        "--data-dir",
        metavar="FOLDER",
        help="where to look first for the files of mnist and fashion-mnist; "
        "then in the folder that NNBACKEND_DATA_DIR names, then in the cache",
    )
    parser.add_argument("--no-download", action="store_true", help="never use the network")


def check_data(name: str, folder: str | None) -> None:
    """What can be said of the choice of data before anything is loaded."""
    if name not in names():
        raise UnknownNameError("data set", name, names())
    if folder is not None and name not in _IN_FOLDERS:
        raise InvalidInputError(
            f"--data-dir is for the data sets {', '.join(_IN_FOLDERS)}; {name!r} is not read from a folder"
        )


def load_data(name: str, options: argparse.Namespace) -> Dataset:
    """The data set as the options say."""
    return load(name, folder=options.data_dir, download=not options.no_download)
