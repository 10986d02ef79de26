"""Lets test processes share compiled code, because all pytest workers start with the same empty caches.

Otherwise two workers that need a kernel at the same time would both compile it, which adds up to minutes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    import fcntl
except ImportError:  # on Windows each worker builds for itself
    fcntl = None  # type: ignore[assignment]

__all__ = ["adopt_kernels", "compile_once", "locked", "user_cache"]

#: Seconds that a process waits for another before it does the work itself.
PATIENCE = 60.0


def user_cache() -> Path:
    """The folder of what tests keep between runs. Without `platformdirs`, which machines with a GPU may lack."""
    windows, elsewhere = os.environ.get("LOCALAPPDATA"), os.environ.get("XDG_CACHE_HOME")
    return Path(elsewhere or windows or Path.home() / ".cache", "nnbackend-tests")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock shared by all processes that use the same file, which need not exist. It is released when the process
    ends."""
    with path.open("w") as file:
        end = time.monotonic() + PATIENCE
        while fcntl is not None and time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.01)
        yield


def compile_once(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let only one of the processes that use this folder compile a function that Numba caches on disk.

    If the compiled function is missing, the process takes a lock, looks again, compiles, saves and releases the lock.
    There is one lock for all signatures of a function.
    """
    from numba.core.caching import Cache
    from numba.core.ccallback import CFunc
    from numba.core.dispatcher import Dispatcher

    load, save = Cache.load_overload, Cache.save_overload
    if getattr(load, "takes_locks", False):
        # Taken twice, a lock would wait for itself: the tests of the package and those of the benchmarks both ask.
        return
    held: dict[str, contextlib.ExitStack] = {}

    def load_overload(cache: Any, signature: Any, context: Any) -> Any:
        found, name = load(cache, signature, context), _name(cache)
        if found is not None or name in held:
            return found
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(folder / name))
            found = load(cache, signature, context)
            if found is None:
                held[name] = stack.pop_all()
        return found

    vars(load_overload)["takes_locks"] = True

    def save_overload(cache: Any, signature: Any, compiled: Any) -> None:
        with held.pop(_name(cache), contextlib.ExitStack()):
            save(cache, signature, compiled)

    def releasing(compile_: Callable[..., Any]) -> Callable[..., Any]:
        """`compile_`, which leaves no lock behind if it fails or does not save what it compiled."""

        @functools.wraps(compile_)
        def compile_and_release(*arguments: Any, **named: Any) -> Any:
            before = set(held)
            try:
                return compile_(*arguments, **named)
            finally:
                for name in set(held) - before:
                    held.pop(name).close()

        return compile_and_release

    patch.setattr(Cache, "load_overload", load_overload)
    patch.setattr(Cache, "save_overload", save_overload)
    patch.setattr(Dispatcher, "compile", releasing(Dispatcher.compile))
    patch.setattr(CFunc, "compile", releasing(CFunc.compile))


def adopt_kernels(cache: Path) -> None:
    """Add compiled kernels of this package from another folder to those that this process loads.

    Existing kernels are kept; all others are copied.

    Parameters
    ----------
    cache : Path
        The ``NUMBA_CACHE_DIR`` of a process that ran the same source code for the same target.
    """
    target = _kernel_folder()
    if target is None:  # no folder can be written
        return
    os.makedirs(target, exist_ok=True)
    for source in sorted(cache.rglob("*.nbc")):
        ours = Path(target, source.name)
        if not ours.exists():
            unfinished = ours.with_name(f"{ours.name}.{os.getpid()}")
            shutil.copyfile(source, unfinished)
            os.replace(unfinished, ours)


def _kernel_folder() -> str | None:
    """The folder in which this process caches the kernels of this package."""
    from nnbackend.backends.numba import dense_products

    return dense_products.forward.stats.cache_path


def _name(cache: Any) -> str:
    """The name of the lock file of a function."""
    return hashlib.sha256(f"{cache.cache_path}/{cache._cache_file.name}".encode()).hexdigest()[:32]
