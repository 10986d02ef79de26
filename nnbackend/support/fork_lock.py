"""A lock that is released in a forked child process, and cached properties that need no lock.

Threads do not survive a fork, so an ordinary lock that another thread holds during the fork would stay locked in the
child process.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING

__all__ = ["ForkLock", "cached_property"]


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


if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801
        """`functools.cached_property` as it is since Python 3.12, without a lock.

        Before, each property had one lock for all instances, and a fork while another thread computed a value left it
        locked in the child process. Two threads that ask for a value at the same time may both compute it.
        """

        def __get__(self, instance, owner=None):
            if instance is None or self.attrname is None:
                return super().__get__(instance, owner)
            values = instance.__dict__
            if self.attrname not in values:
                values[self.attrname] = self.func(instance)
            return values[self.attrname]
