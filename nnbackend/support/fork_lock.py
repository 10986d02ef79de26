"""A lock that is released in a forked child process.

Threads do not survive a fork, so an ordinary lock that another thread holds during the fork would stay locked in the
child process.
"""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["ForkLock"]


class ForkLock:
    """A lock to use as ``with lock:``, like `threading.Lock`.

    Parameters
    ----------
    reentrant : bool
        Whether the thread that holds it may acquire it again, like `threading.RLock`.
    """

    def __init__(self, reentrant: bool = False) -> None:
        self._make = threading.RLock if reentrant else threading.Lock
        self._lock = self._make()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


_LOCKS: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _replace_all() -> None:
    for lock in _LOCKS:
        lock._lock = lock._make()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_all)
