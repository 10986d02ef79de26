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

from llvmlite.binding import Linkage
from numba import njit
from numba.core import sigutils
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from nnbackend.backends.numba.disk_cache import KernelCache

__all__ = ["as_written", "compile_callback", "internal", "internal_as_written", "jit"]


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


def jit(function, fastmath=frozenset({"reassoc", "contract", "nsz", "arcp", "afn"}), for_python=True):
    """Compile a function when it is first called.

    Without `for_python` only jitted code may call it, and Numba does not compile the conversion of Python's objects.
    """
    jitted = njit(
        error_model="numpy",
        fastmath=set(fastmath),
        nogil=True,
        no_cpython_wrapper=not for_python,
        no_cfunc_wrapper=True,
    )(function)
    _keep(jitted, function)
    compile_ = jitted._compiler.compile

    def self_contained(arguments, return_type):
        with _own_copies():
            return compile_(arguments, return_type)

    jitted._compiler.compile = self_contained
    return jitted


def compile_callback(function, signature):
    """A function of C's kind, compiled at once: others may call it by its address."""
    options = {"nopython": True, "error_model": "numpy"}
    callback = CFunc(function, sigutils.normalize_signature(signature), {}, options)
    _keep(callback, function)
    with _own_copies():
        callback.compile()
    return callback


class _SelfContainedLibrary(JITCodeLibrary):
    """Machine code in which a function calls its own copies of the functions that were linked into it.

    Numba links a copy of what a function calls into its module, optimises the two together, and lets the copies of one
    function in all modules stand for each other: a call goes to the copy that the process happened to load first. But
    with fast-math flags two copies may round differently. Then bits would depend on which kernels were compiled, and
    which were loaded from disk.
    """

    def _optimize_final_module(self):
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                function.linkage = Linkage.internal
        super()._optimize_final_module()


@contextlib.contextmanager
def _own_copies():
    """What is compiled within calls its own copies of other functions."""
    codegen = cpu_target.target_context.codegen()
    with global_compiler_lock:
        before = codegen._library_class
        codegen._library_class = _SelfContainedLibrary
        try:
            yield
        finally:
            codegen._library_class = before


def _keep(compiled, function):
    """What Numba's `enable_caching` does, with our files."""
    # If neither the package's folder nor the user's cache is writable, every process compiles for itself.
    with contextlib.suppress(RuntimeError):
        compiled._cache = KernelCache(function, STAMP)


#: Without fast-math flags: with them LLVM could sum in another order in one place than in another.
as_written = partial(jit, fastmath=())

#: The same two for functions that only jitted code calls.
internal, internal_as_written = partial(jit, for_python=False), partial(jit, fastmath=(), for_python=False)
