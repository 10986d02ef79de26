"""The number of cores that this process may use: its affinity and, on Linux, the quota of its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """The number of cores that this process may use; at least 1.

    A quota, as set by ``docker run --cpus`` or Kubernetes, counts as that many cores, rounded up. With more threads,
    all of them would pause whenever the quota is used up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas())]))


def quotas(root: Path = Path("/")) -> Iterator[float]:
    """The quotas, in cores, of the control groups of this process and of their parent groups.

    See "CPU" in https://docs.kernel.org/admin-guide/cgroup-v2.html and, for version 1,
    https://docs.kernel.org/scheduler/sched-bwc.html. Files that are missing or cannot be read set no limit.
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
    """The folder of a group and its parents up to `top`; only `top` in a container with another namespace."""
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
