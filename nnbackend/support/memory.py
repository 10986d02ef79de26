"""Out-of-memory errors that say what needed the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from nnbackend.errors import OutOfMemoryError

__all__ = ["memory_explained", "size_text"]


class Device(Protocol):
    """What the error asks of a backend."""

    device: str

    def free_bytes(self) -> int | None:
        """Memory that is left; None if nobody knows."""


@contextmanager
def memory_explained(backend: Device, what: str, sizes: Callable[[], Mapping[str, int]], advice: str) -> Iterator[None]:
    """Turn a MemoryError of the host or the device into one that says what needed the memory and what to lower.

    Parameters
    ----------
    backend : Backend
        Where the arrays are.
    what : str
        What needs the memory: "training".
    sizes : callable
        Returns the bytes that are needed, by name; called only if memory runs out.
    advice : str
        What to do.

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
        left = "" if free is None else f", {size_text(free)} are free there"
        said = str(error).strip() or "no more was available"
        raise OutOfMemoryError(
            f"{what} on {backend.device} does not fit into memory{left} ({said}); it takes {parts}. {advice}"
        ) from error


def size_text(size: int) -> str:
    """A number of bytes, to read."""
    number, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
