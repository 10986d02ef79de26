"""Read and write files: complete ones only, regular ones only, and with `follow=False` none outside their folder.

A crash, a full disk or Ctrl-C never leaves an incomplete file. A folder from an untrusted source may contain symbolic
or hard links, pipes, devices, folders with the names of files, and huge files. The functions here open a name only if
it is a regular file. With ``follow=False`` they do not follow a symbolic link with that name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from nnbackend.errors import InvalidInputError, shown

__all__ = [
    "atomic_write",
    "check_regular",
    "check_writable",
    "is_file_system_full",
    "leftovers",
    "open_lock",
    "open_regular",
    "opened_name",
    "path_text",
    "read_small",
    "remove_leftovers",
    "try_lock",
    "write_csv",
]

#: Prefix and suffix of the names of temporary files.
_PREFIX, _SUFFIX = ".nnbackend-", ".tmp"

#: Sizes of sparse files up to this many bytes are believed. Larger files may be at most `_MOST_RATIO` times as large as
#: what the disk stores of them.
_BELIEVED = 1 << 30
_MOST_RATIO = 1032

#: Flags that other systems lack.
_NONBLOCK, _NOCTTY = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_NOCTTY", 0)
_NOFOLLOW, _BINARY = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_BINARY", 0)

#: Errors of file systems without modes, flushing or locks, which files can do without.
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


# ---- write -------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_write(path: str | os.PathLike[str], follow: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`, and replace `path` by it after everything is written.

    Readers see the old file or the new one, never a part. The temporary file is in the same folder because a rename is
    atomic only within one file system.

    Parameters
    ----------
    path : str or path-like
        The file to write. Its folder is created if it is missing.
    follow : bool
        If `path` is a symbolic link, write to the file it points to, as `open` does. False raises an error instead.

    Yields
    ------
    binary file object, open for writing

    Raises
    ------
    OSError
        The file cannot be written (disk full, no permission); its `filename` is `path`, and an existing file is
        unchanged.
    """
    temporary = ""
    try:
        target = os.path.realpath(path) if follow else os.fsdecode(path)
        with suppress(FileNotFoundError):
            check_regular(target, follow=False)
        folder = os.path.dirname(target)
        os.makedirs(folder or os.curdir, exist_ok=True)
        descriptor, temporary = _create_temporary(folder)
        with os.fdopen(descriptor, "wb") as stream:
            # A process that tidies the folder at the same time sees that the file is in use.
            try_lock(descriptor)
            yield stream
            stream.flush()
            with _ignored_if_not_supported():
                os.fsync(descriptor)
            # Keep the mode of a file that is replaced, if the file system has modes.
            with suppress(FileNotFoundError, PermissionError), _ignored_if_not_supported():
                os.chmod(temporary, os.stat(target).st_mode & 0o777)
        os.replace(temporary, target)
    except BaseException as error:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        # Errors of writing do not name a file, and nobody has heard of the temporary one.
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, temporary):
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error
        raise


def _create_temporary(folder: str) -> tuple[int, str]:
    """A new file that nobody else has, with the mode that `open` would give it: the system applies the umask."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY
    while True:
        path = os.path.join(folder, f"{_PREFIX}{os.urandom(8).hex()}{_SUFFIX}")
        with suppress(FileExistsError):
            return os.open(path, flags, 0o666), path


@contextmanager
def _ignored_if_not_supported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
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
    with suppress(FileNotFoundError, NotADirectoryError):
        check_regular(target)
    folder = os.path.dirname(target)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no file can be created in this folder", folder)


def is_file_system_full(error: OSError) -> bool:
    """Whether removing files may help: no space is left on the disk, or of the user's quota."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def leftovers(folder: str | os.PathLike[str]) -> list[str]:
    """The temporary files in a folder, of processes that write them or were killed."""
    names = os.listdir(folder)
    return [os.path.join(folder, name) for name in names if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of killed processes, but not those that a process is writing."""
    for path in leftovers(folder):
        # A folder with such a name is not ours, and stays.
        with suppress(OSError):
            if not _is_being_written(path):
                os.unlink(path)


def _is_being_written(path: str) -> bool:
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        # Not made by `atomic_write`; removing the name affects nothing outside the folder, opening it might.
        return False
    # For writing, because NFS has no exclusive locks for readers.
    descriptor = os.open(path, os.O_RDWR | _NONBLOCK | _NOCTTY | _NOFOLLOW)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], follow: bool = True) -> None:
    """Write a table with a header; its columns are the keys of all rows, in order of first appearance."""
    # Imported here because both import modules that training and prediction do not need.
    import csv
    import io

    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path, follow) as stream:
        stream.write(text.getvalue().encode())


# ---- read --------------------------------------------------------------------------------------------------------


def check_regular(path: str | os.PathLike[str], follow: bool = True) -> None:
    """Check that `path` is a regular file.

    Raises
    ------
    FileNotFoundError
        There is nothing.
    OSError
        It is a folder, a pipe, a device, a socket or, without `follow`, a symbolic link.
    """
    mode = os.stat(path, follow_symlinks=follow).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "a symbolic link, which is not followed here", os.fsdecode(path))
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "a folder, not a file", os.fsdecode(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))


def open_regular(path: str | os.PathLike[str], follow: bool = True) -> int:
    """Open a file that may come from an untrusted source, for reading, without waiting.

    Returns
    -------
    int
        A descriptor.

    Raises
    ------
    OSError
        As `check_regular`; or it claims more than a gigabyte, of which the disk stores almost nothing.
    """
    # Before opening it, because opening some devices has an effect; and again, in case it was replaced since.
    check_regular(path, follow)
    flags = os.O_RDONLY | _NONBLOCK | _NOCTTY | _BINARY
    descriptor = os.open(path, flags if follow else flags | _NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        stored = 512 * getattr(found, "st_blocks", 0)
        # Some network file systems report 0 for all files.
        if stored and found.st_size > max(_BELIEVED, _MOST_RATIO * stored):
            reason = f"claims {found.st_size:,} bytes, of which the disk stores {stored:,}"
            raise OSError(errno.EFBIG, reason, os.fsdecode(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def opened_name(path: str | os.PathLike[str], follow: bool = True) -> Iterator[str]:
    """A name of the file that `open_regular` opens, for libraries that take no descriptors; raises its errors."""
    descriptor = open_regular(path, follow)
    try:
        name = f"/dev/fd/{descriptor}"
        yield name if os.path.exists(name) else os.fsdecode(path)
    finally:
        os.close(descriptor)


def read_small(path: str | os.PathLike[str], most: int, follow: bool = True) -> bytes:
    """Read a small file that may come from an untrusted source.

    Raises
    ------
    OSError
        As `open_regular`, or the file is larger than `most` bytes.
    """
    with os.fdopen(open_regular(path, follow), "rb") as stream:
        contents = stream.read(most + 1)
    if len(contents) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", os.fsdecode(path))
    return contents


# ---- lock --------------------------------------------------------------------------------------------------------


def open_lock(path: str) -> int:
    """Open or create a file that only serves as a lock.

    Raises
    ------
    OSError
        It cannot be created; or there is something else with this name, which is not opened, locked or changed.
    """
    with suppress(FileNotFoundError):
        check_regular(path, follow=False)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NONBLOCK | _NOCTTY | _NOFOLLOW, 0o666)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file of its own but a link; remove it", path)
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Lock an open file, until it is closed; False if another process, or another opener in this one, has locked it.

    Where locks are not supported (Windows, some network file systems), nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    return True
