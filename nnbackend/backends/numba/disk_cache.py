"""The disk cache of compiled functions, safe for several processes that start with the same empty folder.

Numba numbers the files of a function by an index that it reads before compiling and writes afterwards. Two processes
that compile a function for different types then use the same number, and one later loads the other's machine code. Here
every file has a unique name. If a file cannot be read, the function is compiled again. If it cannot be written, the
function is not cached: the disk may fill up, or the folder disappear, long after the program started.
"""

from __future__ import annotations

import contextlib
import logging
import os
import uuid

from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.runtime.nrt import rtsys

__all__ = ["KernelCache"]

_log = logging.getLogger("nnbackend")


class KernelFiles(IndexDataCacheFile):
    """The files of one function."""

    def _data_name(self, number):
        return f"{self._stem}.{uuid.uuid4().hex[:16]}.nbc"

    @property
    def _stem(self):
        return self._index_name.removesuffix(".nbi")

    def save(self, key, data):
        if not self._load_index():
            # Files of another version of the package, or without an index, can no longer be found.
            self._remove_all()
        super().save(key, data)

    def _load_index(self):
        try:
            return super()._load_index()
        except OSError:
            raise
        except Exception:
            # Truncated by a crash, for which pickle raises various errors. The next save writes it again.
            return {}

    def load(self, key):
        try:
            return super().load(key)
        except OSError:
            raise
        except Exception:
            return None

    def holds(self, key):
        """Whether a function is there: processes write its name to the index first, and then the file."""
        try:
            name = self._load_index().get(key)
        except OSError:
            return False
        return name is not None and os.path.exists(self._data_path(name))

    def _remove_all(self):
        with contextlib.suppress(OSError):
            for name in os.listdir(self._cache_path):
                if name.startswith(f"{self._stem}.") and name.endswith(".nbc"):
                    os.unlink(self._data_path(name))


class KernelCache(FunctionCache):
    """The cache of one function.

    Parameters
    ----------
    function : Python function
    stamp : object
        Files with a different stamp are outdated.

    Raises
    ------
    RuntimeError
        Neither the package's folder nor the user's cache is writable.
    """

    def __init__(self, function, stamp):
        super().__init__(function)
        self._cache_file = KernelFiles(self._cache_path, self._impl.filename_base, stamp)

    def holds(self, signature, context):
        """Whether the compiled function is there."""
        return self._cache_file.holds(self._index_key(signature, context.codegen()))

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
