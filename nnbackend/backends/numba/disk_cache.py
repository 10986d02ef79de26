"""The disk cache of compiled functions, safe for several processes that start with the same empty folder.

Numba numbers the files of a function by an index that it reads before compiling and writes afterwards. Two processes
that compile a function for different types then use the same number, and one later loads the other's machine code. Here
there is no index: the name of a file is a checksum of the function and the types. If a file cannot be read, or is
damaged, the function is compiled again. If it cannot be written, the function is not cached: the disk may fill up, or
the folder disappear, long after the program started.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import uuid
import zlib
from pathlib import Path

from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps

from nnbackend.backends.numba.cache_folders import cache_folders, make_folder
from nnbackend.backends.numba.targets import selected

__all__ = ["KernelCache", "KernelFiles"]

_log = logging.getLogger("nnbackend")


#: Bytes of the checksum with which a file begins.
_CHECKSUM = 4


def _checksum(text):
    return zlib.crc32(text).to_bytes(_CHECKSUM, "little")


class KernelFiles:
    """The files of one function for one target, one for each signature.

    Parameters
    ----------
    folders : sequence of Path
        Where files are looked for.
    writable : Path
        Where they are written.
    name : str
        Of the function.
    """

    def __init__(self, folders, writable, name):
        self._folders, self._writable, self.name = folders, writable, name

    def path(self, key, folder=None):
        """The file of a key."""
        return Path(folder or self._writable, f"{self.name}.{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.nbc")

    def save(self, key, data):
        path = self.path(key)
        make_folder(path.parent)
        unfinished = path.with_name(f"{path.name}.tmp.{uuid.uuid4().hex[:16]}")
        try:
            text = dumps((key, data))
            unfinished.write_bytes(_checksum(text) + text)
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise

    def load(self, key):
        for folder in self._folders:
            try:
                text = self.path(key, folder).read_bytes()
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            # A file damaged by a crash or a disk is written again: pickle would not notice other machine code.
            checksum, text = text[:_CHECKSUM], memoryview(text)[_CHECKSUM:]
            if checksum != _checksum(text):
                continue
            with contextlib.suppress(Exception):
                found, data = pickle.loads(text)
                if found == key:
                    return data
        return None

    def holds(self, key):
        """Whether there is a file."""
        return any(os.path.exists(self.path(key, folder)) for folder in self._folders)


class _Results(CompileResultCacheImpl):
    """Converts compiled functions, without Numba's own search for a folder."""

    def __init__(self, function):
        self._lineno = function.__code__.co_firstlineno
        self._py_file = function.__code__.co_filename
        self._locator = self

    def ensure_cache_path(self):
        """The folder is made when a file is written."""


class KernelCache(FunctionCache):
    """The cache of one function.

    Parameters
    ----------
    function : Python function

    Raises
    ------
    RuntimeError
        Neither the package's folder nor the user's cache is writable.
    """

    def __init__(self, function):
        folders, target = cache_folders(), selected()
        if folders.writable is None:
            raise RuntimeError("no folder is writable")
        self._name, self._py_func, self._impl = repr(function), function, _Results(function)
        self._cache_path = str(folders.writable / target)
        module, name = function.__module__.rpartition(".")[2], function.__qualname__.replace("<locals>.", "")
        self._cache_file = KernelFiles(
            [folder / target for folder in folders.readable], folders.writable / target, f"{module}.{name}"
        )
        self.enable()

    def holds(self, signature, context):
        """Whether the compiled function is there."""
        return self._cache_file.holds(self._index_key(signature, context.codegen()))

    def flush(self):
        """Needed by Numba's `Dispatcher.recompile` only."""

    def _index_key(self, sig, codegen):
        # Names of types instead of the types, which are equal if their names are. The folder stands for the target.
        signature, _, code = super()._index_key(sig, codegen)
        return repr(signature), code

    def load_overload(self, sig, target_context):
        # Numba would first import what it needs to compile, SciPy's linear algebra included, which takes longer than to
        # load all kernels. Only the memory of arrays has to be ready. Numba holds its lock here.
        rtsys.initialize(target_context)
        target_context.refresh = lambda: None
        try:
            return super().load_overload(sig, target_context)
        finally:
            del target_context.refresh

    @contextlib.contextmanager
    def _guard_against_spurious_io_errors(self):
        try:
            yield
        except OSError as error:
            _tell_once(self._cache_path, error)


_told: set[object] = set()


def _tell_once(folder, error):
    if folder not in _told:
        _told.add(folder)
        _log.warning("compiled kernels cannot be cached in %s (%s); every process compiles them again", folder, error)
