"""Write files so that a crash, a full disk or Ctrl-C never leaves an incomplete one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from nnbackend.errors import InvalidInputError, shown

__all__ = ["atomic_write", "check_writable", "path_text", "read_small", "remove_leftovers", "write_csv"]

#: Prefix and suffix of the names of temporary files.
_PREFIX, _SUFFIX = ".nnbackend-", ".tmp"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`, and replace `path` by it after everything is written.

    Readers see the old file or the new one, never a part. The temporary file is in the same folder because a rename is
    atomic only within one file system.

    Parameters
    ----------
    path : str or path-like
        The file to write. Its folder is created if it is missing.

    Yields
    ------
    binary file object, open for writing

    Raises
    ------
    OSError
        The file cannot be written (disk full, no permission); an existing file at `path` is unchanged.
    """
    # Imported here, like csv below: both import many modules that training and prediction do not need.
    import tempfile

    # Follow a symbolic link, as writing to it does.
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


def path_text(what: str, path: Any) -> str:
    """A path as text.

    Raises
    ------
    InvalidInputError
        It is not a path.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise InvalidInputError(f"{what} must be a path, received {shown(path)}") from None
    if not text or "\0" in text:
        raise InvalidInputError(f"{what} must be a path, received {shown(path)}")
    return text


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that `atomic_write` could create or replace a file, as far as can be seen without trying.

    Raises
    ------
    OSError
        It could not.
    """
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, "a folder, not a file", os.fsdecode(path))
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
    folder = os.path.dirname(target)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no file can be created in this folder", folder)


def read_small(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a small file that may come from an untrusted source.

    Raises
    ------
    OSError
        The file is missing, not a regular file (reading a pipe may block, and a device may be endless), or larger than
        `most` bytes.
    """
    # O_NONBLOCK: opening a pipe would block until another process writes to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        contents = stream.read(most + 1)
    if len(contents) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", os.fspath(path))
    return contents


def _usual_mode(target: str) -> int:
    """The file mode that `open` would use; `mkstemp` creates files that only their owner can read."""
    if os.path.exists(target):
        return os.stat(target).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of killed processes; no other process may be writing to the folder."""
    for name in os.listdir(folder):
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table with a header; its columns are the keys of all rows, in order of first appearance."""
    import csv
    import io

    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode())
