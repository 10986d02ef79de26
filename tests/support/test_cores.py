"""The number of cores that this process may use."""

from __future__ import annotations

import os

import pytest

from nnbackend.support import cores

V2, V1 = "0::/a/b\n", "4:cpu,cpuacct:/a\n1:name=systemd:/a\n"


def laid_out(root, membership, files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (V2, {"a/b/cpu.max": "150000 100000\n"}, [1.5]),
        (V2, {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, [3]),
        (V2, {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "200000 100000\n"}, [4, 2]),
        (V2, {"cpu.max": "100000 100000\n"}, [1]),  # a container sees its own group at the top
        ("0::/../elsewhere\n", {"cpu.max": "100000 100000\n"}, [1]),
        (V2, {"a/b/cpu.max": "nonsense\n"}, []),
        (V2, {"a/b/cpu.max": "100000 0\n"}, []),
        (V1, {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, [0.5]),
        (V1, {"cpu,cpuacct/a/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, []),
        (V2, {}, []),
        ("", {"cpu.max": "100000 100000\n"}, []),
    ],
)
def test_quotas_are_read_from_the_control_groups(tmp_path, membership, files, expected):
    assert list(cores.quotas(laid_out(tmp_path, membership, files))) == expected


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert list(cores.quotas(tmp_path)) == []


@pytest.mark.parametrize(("quotas", "expected"), [([], 8), ([2.5], 3), ([0.2], 1), ([20.0], 8), ([4, 2], 2)])
def test_the_least_of_affinity_and_quotas_counts(monkeypatch, quotas, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "quotas", lambda: iter(quotas))
    assert cores.usable_cores() == expected
