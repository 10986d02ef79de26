"""The disk cache of compiled functions, and how many this process loaded or compiled.

Does not need Numba.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CacheState", "cache_state"]


@dataclass(frozen=True)
class CacheState:
    """Compiled kernels; each combination of function and argument types counts as one.

    Attributes
    ----------
    folder : Path or None
        The cache folder; None if no jitted function is loaded, or if Numba found no writable folder.
    compiled, loaded : int
        Numbers of kernels that this process compiled, and loaded from the folder.
    """

    folder: Path | None
    compiled: int
    loaded: int


def cache_state() -> CacheState:
    """The state of the cache in this process."""
    stats = [function.stats for function in _jitted_functions()]
    folders = [Path(entry.cache_path) for entry in stats if entry.cache_path is not None]
    return CacheState(
        folder=folders[0] if folders else None,
        compiled=sum(entry.cache_misses.total() for entry in stats),
        loaded=sum(entry.cache_hits.total() for entry in stats),
    )


def _jitted_functions() -> list[Any]:
    package = __name__.rpartition(".")[0]
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(package)]
    found = {id(value): value for module in modules for value in vars(module).values() if _is_jitted(value)}
    return list(found.values())


def _is_jitted(value: Any) -> bool:
    return hasattr(value, "py_func") and hasattr(getattr(value, "stats", None), "cache_path")
