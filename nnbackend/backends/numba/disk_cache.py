"""What Numba keeps on disk of this package, safe for several processes that start with an empty folder at once.

Numba numbers the files of a function by an index that it reads before and writes after. Two processes that compile it
for different types then take the same number, and one of them is handed the other's machine code later. Here every file
has a name of its own. A file that cannot be read is compiled anew, and one that cannot be written is not kept: the disk
may be full, or the folder gone, long after the program began.
"""

from __future__ import annotations

import contextlib
import logging
import os
import uuid

from numba.core.caching import FunctionCache, IndexDataCacheFile

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
            # Of another version of the package, or of nothing: nobody finds them any more.
            self._remove_all()
        super().save(key, data)

    def _load_index(self):
        try:
            return super()._load_index()
        except OSError:
            raise
        except Exception:
            # Cut off by a crash of the machine: whatever pickle says of that. The next save writes it anew.
            return {}

    def load(self, key):
        try:
            return super().load(key)
        except OSError:
            raise
        except Exception:
            return None

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
        What was kept with another one is outdated.

    Raises
    ------
    RuntimeError
        Neither the package's folder nor the user's cache can be written.
    """

    def __init__(self, function, stamp):
        super().__init__(function)
        self._cache_file = KernelFiles(self._cache_path, self._impl.filename_base, stamp)

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
        _log.warning("compiled kernels cannot be kept in %s (%s): every process compiles them anew", folder, error)
