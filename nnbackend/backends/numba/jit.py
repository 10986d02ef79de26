"""Compiler settings and disk cache of the Numba backend.

* ``error_model="numpy"``: Numba's default check for division by zero prevents vectorisation.
* The fast-math flags allow reordering sums and fused multiply-adds, but not the assumption that no value is NaN or
  infinite, because divergence must be visible.
* No Numba parallelism, because we have our own threads, and two pools on the same cores slow each other down many times
  over.
* ``nogil``: Python threads can run it in parallel.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from functools import partial
from typing import Any

from llvmlite.binding import Linkage
from numba import njit
from numba.core import sigutils
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from nnbackend.backends.numba.disk_cache import KernelCache
from nnbackend.backends.numba.targets import selected
from nnbackend.support.memory import without_collections

__all__ = [
    "as_written",
    "cache_folder",
    "callback_of",
    "compile_callback",
    "internal",
    "internal_as_written",
    "is_on_disk",
    "jit",
]


# Numba chooses the CPU to compile for when it is given the first function.
selected()


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
    # Also where Numba loads compiled code from disk, or saves it.
    jitted.compile = _uninterrupted(jitted.compile)
    return jitted


def callback_of(function, signature):
    """A C function that others can call by its address, once it is compiled."""
    options = {"nopython": True, "error_model": "numpy"}
    callback = CFunc(function, sigutils.normalize_signature(signature), {}, options)
    _keep(callback, function)
    return callback


def compiled(callback):
    """The same, compiled or loaded from disk, unless another thread has done that."""
    with _own_copies():
        if callback.address is None:
            _uninterrupted(callback.compile)()
    return callback


def compile_callback(function, signature):
    """A C function, compiled immediately."""
    return compiled(callback_of(function, signature))


def cache_folder(callback):
    """Where it is kept; None if no folder is writable."""
    return callback._cache.cache_path if isinstance(callback._cache, KernelCache) else None


def is_on_disk(callback: Any) -> bool:
    """Whether the cache on disk has it."""
    cache = callback._cache
    return isinstance(cache, KernelCache) and cache.holds(callback._sig, cpu_target.target_context)


def _uninterrupted(compile_):
    """The function, with Ctrl-C postponed to its end.

    While LLVM runs, Python may receive Ctrl-C in a function that LLVM calls. The KeyboardInterrupt is then lost, or
    comes out of the compiler as another error.
    """

    @functools.wraps(compile_)
    def postponing(*arguments, **options):
        previous = signal.getsignal(signal.SIGINT)
        # Only the main thread receives signals. Functions that are not Python's raise nothing.
        if threading.current_thread() is not threading.main_thread() or not callable(previous):
            return compile_(*arguments, **options)
        received = []
        signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
        try:
            return compile_(*arguments, **options)
        finally:
            signal.signal(signal.SIGINT, previous)
            if received:
                # Calls the previous handler, which belongs to the caller of this function if compilations are nested.
                signal.raise_signal(signal.SIGINT)

    return postponing


class _SelfContainedLibrary(JITCodeLibrary):
    """Machine code in which a function calls its own copies of the functions linked into it.

    Numba links copies of called functions into a function's module and optimises them together. All copies of one
    function are interchangeable, and a call goes to the copy that the process loaded first. But with fast-math flags
    two copies may round differently, so results would depend on which kernels were compiled and which were loaded from
    disk.
    """

    def _optimize_functions(self, module):
        # Numba would optimise each function here, too; it takes a tenth of the time to compile, and changes nothing.
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                # Not internal: names of internal functions are resolved across modules, to copies that LLVM may have
                # given other calling conventions.
                function.linkage = Linkage.private
        super()._optimize_final_module()


@contextlib.contextmanager
def _own_copies():
    """A context in which compiled functions call their own copies of other functions."""
    codegen = cpu_target.target_context.codegen()
    # Garbage collections find little while a function is compiled, and take a tenth of the time.
    with global_compiler_lock, without_collections():
        before = codegen._library_class
        codegen._library_class = _SelfContainedLibrary
        try:
            yield
        finally:
            codegen._library_class = before


def _keep(compiled, function):
    """Like Numba's `enable_caching`, but with our files."""
    # If neither the package's folder nor the user's cache is writable, every process compiles for itself.
    with contextlib.suppress(RuntimeError):
        compiled._cache = KernelCache(function)


#: Without fast-math flags, with which LLVM could choose a different order of sums in different callers.
as_written = partial(jit, fastmath=())

#: The same two for functions that only jitted code calls.
internal, internal_as_written = partial(jit, for_python=False), partial(jit, fastmath=(), for_python=False)
