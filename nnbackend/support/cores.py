"""How many cores this process may use: its affinity, and on Linux the quota of its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than there are; at least 1.

    A quota, as ``docker run --cpus`` or Kubernetes sets it, counts as so many cores, rounded up: with more threads all
    would be stopped together when it is used up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas())]))


def quotas(root: Path = Path("/")) -> Iterator[float]:
    """The quotas of the control groups that this process is in and of those around them, in cores.

    See "CPU" in https://docs.kernel.org/admin-guide/cgroup-v2.html and, for version 1,
    https://docs.kernel.org/scheduler/sched-bwc.html. What is not there or cannot be read sets no limit.
    """
    groups = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            for folder in _upwards(groups, path):
                yield from _quota(_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for folder in _upwards(groups / controllers, path):
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                yield from _quota([*quota.split(), *period.split()])


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it; in a container, where the path may be of another namespace, the top."""
    folder = top / path.lstrip("/")
    while folder != top and top in folder.parents:
        yield folder
        folder = folder.parent
    yield top


def _quota(words: list[str]) -> Iterator[float]:
    try:
        quota, period = map(float, words)
    except ValueError:
        return  # "max", or no such file
    if quota > 0 and period > 0:
        yield quota / period


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
