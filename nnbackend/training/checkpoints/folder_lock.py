"""One run per folder: a lock that the operating system releases when its process ends for any reason."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from types import TracebackType

from nnbackend.errors import FolderInUseError
from nnbackend.support.files import is_file_system_full, open_lock, remove_leftovers, try_lock

__all__ = ["FolderLock", "LateLock"]

_NAME = "lock"


class FolderLock:
    """Held while a run writes checkpoints to a folder.

    It is a file with the number of the process, locked with ``flock``: a file left by a killed process locks nothing.
    Without ``flock``, as on Windows and on some network file systems, nothing is locked.

    Parameters
    ----------
    folder : str
        Created if it is missing.
    use : str
        What its holder does, for the error of others.
    """

    def __init__(self, folder: str, use: str = "keeps its checkpoints there") -> None:
        self._folder, self._use = folder, use
        self._path = os.path.join(folder, _NAME)
        self._descriptor: int | None = None

    def __enter__(self) -> FolderLock:
        """Take the lock.

        Raises
        ------
        FolderInUseError
            Another run holds it.
        OSError
            The folder cannot be made or written to, or the name of the lock is taken by something else, which is left
            alone.
        """
        self._take()
        remove_leftovers(self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def keep(self) -> None:
        """Take the lock again if the folder or the file was removed; raises the same errors as `__enter__`."""
        if self._descriptor is not None and not self._is_there(self._descriptor):
            os.close(self._descriptor)
            self._descriptor = None
            self._take()

    def _release(self) -> None:
        if self._descriptor is None:
            return
        # Removed while it is held, so that no other lock is removed.
        if self._is_there(self._descriptor):
            # A folder that has become read-only must not end a successful run with an error.
            with suppress(OSError):
                os.unlink(self._path)
        os.close(self._descriptor)
        self._descriptor = None
        if os.name == "nt":
            # Windows does not remove open files, and has no lock that another process could hold by now.
            with suppress(OSError):
                os.unlink(self._path)

    def _take(self) -> None:
        os.makedirs(self._folder, exist_ok=True)
        while self._descriptor is None:
            descriptor = open_lock(self._path)
            try:
                if not try_lock(descriptor):
                    raise FolderInUseError(
                        f"{self._folder} is in use: {_holder(descriptor)} {self._use}; wait until it has ended, end "
                        "it, or choose another folder"
                    )
                # The previous holder may have removed the file; then others would not see this lock.
                if self._is_there(descriptor):
                    self._sign(descriptor)
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def _sign(self, descriptor: int) -> None:
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        except OSError as error:
            # On a full disk, the lock holds without the name of its holder.
            if not is_file_system_full(error):
                raise OSError(error.errno, error.strerror, self._path) from error

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self._path))
        except OSError:
            return False


class LateLock(FolderLock):
    """A lock that is held from the first checkpoint on, because a thousand runs that wait cannot each keep a file open.

    Entering it raises the same errors. Until the first checkpoint, whoever has made these runs must lock a folder above
    theirs.
    """

    def __enter__(self) -> LateLock:
        super().__enter__()
        self._release()
        return self

    def keep(self) -> None:
        """Take the lock if it is not held; raises the same errors as `__enter__`."""
        if self._descriptor is None:
            self._take()
        super().keep()


def _holder(descriptor: int) -> str:
    """Who holds the lock, from the contents of its file."""
    text = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
    return "".join(letter if letter.isprintable() else "?" for letter in text) or "another process"
