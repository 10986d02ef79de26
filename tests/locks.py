"""What one test process builds, the others use: pytest's workers all begin with the same empty caches.

Without this, two workers that need a kernel at the same moment both compile it, minutes of work in all.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    import fcntl
except ImportError:  # on Windows each worker builds for itself
    fcntl = None  # type: ignore[assignment]

__all__ = ["compile_once", "locked"]

#: Seconds after which nobody waits any longer for another process, but does the work too.
PATIENCE = 60.0


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among the processes that name this file, which may be new. The lock ends with its process."""
    with path.open("w") as file:
        end = time.monotonic() + PATIENCE
        while fcntl is not None and time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.01)
        yield


def compile_once(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let only one of the processes that name this folder compile a function that Numba keeps on disk.

    What is not kept yet is looked for once more under a lock, which is held until it is kept. There is one lock for
    all signatures of a function: Numba's list of them loses entries when two processes write it at once.
    """
    from numba.core.caching import Cache

    load, save = Cache.load_overload, Cache.save_overload
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

    def save_overload(cache: Any, signature: Any, compiled: Any) -> None:
        with held.pop(_name(cache), contextlib.ExitStack()):
            save(cache, signature, compiled)

    patch.setattr(Cache, "load_overload", load_overload)
    patch.setattr(Cache, "save_overload", save_overload)


def _name(cache: Any) -> str:
    """Of the file that locks a function."""
    return hashlib.sha256(cache._cache_file._index_path.encode()).hexdigest()[:32]
