"""Parsers for option values."""

from __future__ import annotations

import argparse

from benchmarks.peers.cores import usable

__all__ = ["positive", "threads"]


def positive(text: str) -> int:
    """Parse an integer above zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, received {text}")
    return number


def threads(text: str) -> int:
    """Parse a number of threads, at most the number of cores."""
    number = positive(text)
    if number > usable():
        raise argparse.ArgumentTypeError(f"must be at most the number of cores, {usable()}, received {text}")
    return number
