"""How the Numba backend compiles a function, and where it keeps what it compiled.

* ``error_model="numpy"``: Numba's own check for division by zero keeps LLVM from vectorising.
* The fast-math flags allow other orders of summation and fused multiply-adds, but not the assumption that no
  value is NaN or infinite: a diverging run must show itself.
* No Numba parallelism: the threads are ours. Two pools on the same cores slow each other down many times over.
* ``nogil``: Python's threads run it side by side.
"""

from __future__ import annotations

import contextlib
import zlib
from functools import partial
from pathlib import Path

from numba import njit
from numba.core import sigutils
from numba.core.ccallback import CFunc

from nnbackend.backends.numba.disk_cache import KernelCache

__all__ = ["as_written", "compile_callback", "jit"]


def _stamp(folder=Path(__file__).parent):
    """Changes with any file of this folder.

    Numba keeps compiled functions on disk, and takes them for outdated when their own file has changed. But it compiles
    into a function what that calls, and what writes itself into it, from other files.
    """
    try:
        texts = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
    except OSError:
        texts = []  # an application frozen into one file, which does not change
    return len(texts), zlib.crc32(b"".join(texts))


STAMP = _stamp()


def jit(function, fastmath=frozenset({"reassoc", "contract", "nsz", "arcp", "afn"})):
    jitted = njit(error_model="numpy", fastmath=set(fastmath), nogil=True)(function)
    _keep(jitted, function)
    return jitted


def compile_callback(function, signature):
    """A function of C's kind, compiled at once: others may call it by its address."""
    options = {"nopython": True, "error_model": "numpy"}
    callback = CFunc(function, sigutils.normalize_signature(signature), {}, options)
    _keep(callback, function)
    callback.compile()
    return callback


def _keep(compiled, function):
    """What Numba's `enable_caching` does, with our files."""
    # If neither the package's folder nor the user's cache is writable, every process compiles for itself.
    with contextlib.suppress(RuntimeError):
        compiled._cache = KernelCache(function, STAMP)


#: Without fast-math flags: with them LLVM could sum in another order in one place than in another.
as_written = partial(jit, fastmath=())
