"""The folders of compiled functions on disk.

The name of a folder contains checksums of this package's code and of the versions that it is compiled with. It contains
neither paths nor times, so compiled code is found again after the folder was moved, copied to a layer of a container
image, or installed again. In the folder, each target has a folder of its own; see `targets.py`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.misc import appdirs

from nnbackend.support import VERSION

__all__ = ["STAMP", "CacheFolders", "cache_folders", "make_folder"]

_appdirs: Any = appdirs
_config: Any = numba.config

_PREFIX = "nnbackend-"
#: Seconds after which a folder that no process has used is removed, and in which its use is noted once.
_UNUSED, _NOTED = 30 * 86_400, 86_400


def _stamp(folder: Path = Path(__file__).parent) -> str:
    """A checksum that changes with any file in this folder and in the one above.

    Numba considers a cached function outdated only if its own file has changed. But the compiled code also contains
    functions that it calls, generated code, and numbers from other files, such as the place of a loss among all.
    """
    try:
        texts = [path.read_bytes() for place in (folder, folder.parent) for path in sorted(place.glob("*.py"))]
    except OSError:
        texts = []
    if not texts:
        # In a frozen application or an archive, which does not change; another version is elsewhere.
        texts = [VERSION.encode(), os.fsencode(folder)]
    return f"{zlib.crc32(b''.join(texts)):08x}"


STAMP = _stamp()


def _name() -> str:
    """The name of the folder for this code and these versions."""
    versions = (
        numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, sys.platform, platform.machine()
    )  # fmt: skip
    return f"{_PREFIX}{STAMP}-{zlib.crc32(repr(versions).encode()):08x}"


@dataclass(frozen=True)
class CacheFolders:
    """Where compiled code is looked for and written.

    Attributes
    ----------
    readable : tuple of Path
        In this order. They need not exist.
    writable : Path or None
        The last of them; None if none can be written.
    """

    readable: tuple[Path, ...]
    writable: Path | None

    def targets(self) -> set[str]:
        """The names of the targets for which there is compiled code."""
        found: set[str] = set()
        for folder in self.readable:
            with contextlib.suppress(OSError):
                found.update(entry.name for entry in os.scandir(folder) if entry.is_dir())
        return found


def cache_folders() -> CacheFolders:
    """The folders that Numba's settings choose: ``NUMBA_CACHE_DIR``, beside the package, and the user's cache.

    The search ends at the first one that can be written, so compiled code is also found in a folder that has become
    read-only, such as a layer of a container image.
    """
    return _folders(_config.CACHE_DIR or "")


@functools.cache
def _folders(chosen: str) -> CacheFolders:
    bases = [Path(chosen)] if chosen else []
    if not getattr(sys, "frozen", False):
        bases.append(Path(__file__).parent / "__pycache__")
    bases.append(Path(_appdirs.AppDirs(appname="numba", appauthor=False).user_cache_dir))
    readable, name = [], _name()
    for base in bases:
        folder = base / name
        readable.append(folder)
        if _is_writable(base):
            _note_use(folder)
            return CacheFolders(tuple(readable), folder)
    return CacheFolders(tuple(readable), None)


def make_folder(folder: Path) -> None:
    """Make a target's folder, and remove those of other versions that no process has used for a month."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    own, limit = folder.parent, time.time() - _UNUSED
    with contextlib.suppress(OSError):
        for other in own.parent.glob(f"{_PREFIX}*"):
            if other != own and other.stat().st_mtime < limit:
                shutil.rmtree(other, ignore_errors=True)


def _is_writable(base: Path) -> bool:
    try:
        base.mkdir(parents=True, exist_ok=True)
        # Permissions alone do not tell: the file system may be read-only.
        tempfile.TemporaryFile(dir=base).close()
    except OSError:
        return False
    return True


def _note_use(folder: Path) -> None:
    """Note on disk that the folder is used, once a day."""
    with contextlib.suppress(OSError):
        if time.time() - folder.stat().st_mtime > _NOTED:
            os.utime(folder)
