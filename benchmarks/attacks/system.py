"""Counts the operations that change files, and lets one of them fail or end the process in its middle."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

__all__ = ["KILLED", "MEMORY", "Operations", "in_child"]

#: A folder in memory instead of on disk, if there is one: attacks write many files.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None

#: The exit code of a killed process, as shells report it.
KILLED = 137

#: Functions of `os` that change files. Writing to files opened with `os.fdopen` counts as well.
_FUNCTIONS = ("open", "write", "ftruncate", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "fsync", "chmod")

_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Operations:
    """The operations that change files, in the context `observed`.

    Parameters
    ----------
    act : callable
        Called with the number of each operation, from 0, and its name, before it is done. It may raise an OSError. If
        it returns True, the process ends: before the operation, or after half of a write.

    Attributes
    ----------
    count : int
        Operations so far.
    """

    def __init__(self, act: Callable[[int, str], bool]) -> None:
        self.count = 0
        self._act = act

    @contextmanager
    def observed(self) -> Iterator[Operations]:
        """Count the operations of this thread and all others."""
        with mock.patch.multiple(os, **{name: self._observed(getattr(os, name)) for name in _FUNCTIONS}):
            fdopen = os.fdopen

            def opened(descriptor: int, mode: str = "r", *others: Any, **more: Any) -> Any:
                return _File(descriptor, self) if mode == "wb" else fdopen(descriptor, mode, *others, **more)

            with mock.patch.object(os, "fdopen", opened):
                yield self

    def next(self, name: str, half: Callable[[], object] = lambda: None) -> None:
        """Before an operation; `half` does half of it."""
        number, self.count = self.count, self.count + 1
        if self._act(number, name):
            half()
            # No handler and no `finally` runs, and buffers are lost, as after SIGKILL.
            os._exit(KILLED)

    def _observed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            if function.__name__ != "open" or (len(arguments) > 1 and arguments[1] & _CHANGES):
                try:
                    self.next(function.__name__)
                except OSError as error:
                    if isinstance(arguments[0], int):
                        raise
                    # As the system does.
                    raise OSError(error.errno, error.strerror, os.fspath(arguments[0])) from error
            return function(*arguments, **options)

        return called


class _File(io.RawIOBase):
    """A file opened for writing, without a buffer."""

    def __init__(self, descriptor: int, operations: Operations) -> None:
        self._descriptor, self._operations = descriptor, operations
        self._write = io.FileIO(descriptor, "wb", closefd=True)

    def write(self, contents: Any) -> int:
        view = memoryview(contents).cast("B")
        self._operations.next("write", lambda: self._write.write(view[: len(view) // 2]))
        return self._write.write(view)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        self._write.close()
        super().close()


def in_child(work: Callable[[], int | None], operations: Operations) -> int:
    """Do some work in a forked process and return its exit code, 1 after an exception."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(null, stream)
            with operations.observed():
                code = work() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
