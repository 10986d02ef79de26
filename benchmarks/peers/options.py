"""Values that options of the command line take."""

from __future__ import annotations

import argparse

from benchmarks.peers.cores import usable

__all__ = ["positive", "threads"]


def positive(text: str) -> int:
    """A whole number above zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, received {text}")
    return number


def threads(text: str) -> int:
    """As many as there are cores, or fewer."""
    number = positive(text)
    if number > usable():
        raise argparse.ArgumentTypeError(f"must be at most the {usable()} cores there are, received {text}")
    return number
