"""Out-of-memory errors that say what needed the memory, and garbage collections."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from nnbackend.errors import OutOfMemoryError

__all__ = ["machine_memory", "memory_explained", "size_text", "without_collections"]


class Device(Protocol):
    """The part of a backend that the error needs."""

    device: str

    def free_bytes(self) -> int | None:
        """Free memory in bytes; None if unknown."""


@contextmanager
def memory_explained(backend: Device, what: str, sizes: Callable[[], Mapping[str, int]], advice: str) -> Iterator[None]:
    """Context that turns a MemoryError of host or device into an error that says what needed the memory.

    Parameters
    ----------
    backend : Backend
        The backend of the arrays.
    what : str
        What needs the memory, such as "training".
    sizes : callable
        Returns the required bytes by name; called only after a MemoryError.
    advice : str
        What the user can do.

    Raises
    ------
    OutOfMemoryError
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except MemoryError as error:
        parts = ", ".join(f"{name} {size_text(size)}" for name, size in sizes().items())
        free = backend.free_bytes()
        left = "" if free is None else f", of which {size_text(free)} are free"
        reason = str(error).strip() or "allocation failed"
        raise OutOfMemoryError(
            f"{what} on {backend.device} does not fit into memory{left} ({reason}); it needs {parts}. {advice}"
        ) from error


def size_text(size: int) -> str:
    """A number of bytes as text with a unit."""
    number, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"


def machine_memory() -> int:
    """Bytes of memory of this machine; a number larger than any request if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


@contextmanager
def without_collections() -> Iterator[None]:
    """A context without garbage collections."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
