"""The current and peak memory of this process, and a limit on it; measured only on Linux."""

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
    """Restart the measurement of `highest`, and return the current memory in bytes."""
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
    """The peak memory in bytes since `reset`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit(more: int) -> None:
    """Limit the memory that this process can allocate in addition; beyond the limit, it gets a MemoryError."""
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + more, resource.RLIM_INFINITY))
