"""Writing files so that a crash, a full disk or a Ctrl-C never leaves half of one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

__all__ = ["atomic_write", "read_small", "remove_leftovers", "write_csv"]

#: How the names of temporary files begin and end.
_PREFIX, _SUFFIX = ".nnbackend-", ".tmp"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; put it in the place of `path` only when all is written.

    Readers see the old file or the new one, never a part. The temporary file lies in the same folder,
    because a rename is atomic only within one file system.

    Parameters
    ----------
    path : str or path-like
        The file to write. Its folder is made if it is missing.

    Yields
    ------
    binary file object, open for writing

    Raises
    ------
    OSError
        As the operating system gave it (disk full, no permission); the file at `path` is as it was.
    """
    # Imported here, as csv below: both bring in many modules that training and predicting do not need.
    import tempfile

    # Through a symbolic link to the file it points to, which is what writing to the link means.
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=_PREFIX, suffix=_SUFFIX)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _usual_mode(target))
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_small(path: str | os.PathLike[str], most: int) -> bytes:
    """The contents of a small file that a stranger may have put there.

    Raises
    ------
    OSError
        It is missing, no regular file (a pipe would be waited for, and a device has no end), or larger than `most`
        bytes.
    """
    # Without waiting: opening a pipe does, for somebody who writes.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        contents = stream.read(most + 1)
    if len(contents) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", os.fspath(path))
    return contents


def _usual_mode(target: str) -> int:
    """The mode `open` would have given: `mkstemp` makes files that only their owner can read."""
    if os.path.exists(target):
        return os.stat(target).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed while they wrote left in a folder, which nobody else may be writing to."""
    for name in os.listdir(folder):
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table with a header line; its columns are the keys of all rows, in the order they came."""
    import csv
    import io

    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode())
