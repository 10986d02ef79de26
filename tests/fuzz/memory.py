"""How much memory this process takes, and has taken at most; and a limit on it. Figures only where Linux gives them."""

from __future__ import annotations

import os
import resource

__all__ = ["highest", "limit", "reset"]


def _status(name: str) -> int:
    try:
        with open("/proc/self/status", "rb", buffering=0) as file:
            text = file.read()
    except OSError:
        return 0
    start = text.find(name.encode() + b":")
    return int(text[start + len(name) + 1 :].split(None, 1)[0]) * 1024 if start >= 0 else 0


def reset() -> int:
    """Let `highest` count from now on; the bytes that are held now."""
    try:
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return highest()
    try:
        os.write(descriptor, b"5")
    finally:
        os.close(descriptor)
    return _status("VmRSS")


def highest() -> int:
    """The most bytes held at a time since `reset`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit(more: int) -> None:
    """Let this process reserve so many bytes more than it has, and no others: beyond is a MemoryError."""
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + more, resource.RLIM_INFINITY))
