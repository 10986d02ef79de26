"""The table of `startup`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.entries import CONTENDERS
from benchmarks.peers.markdown import NOTHING, markdown

__all__ = ["body"]


def body(result: Mapping[str, Any]) -> list[str]:
    """The table, and what its columns mean."""
    rows: list[Sequence[str]] = [
        ("library", "import", "first step, nothing compiled", "second process", "memory", "installed")
    ]
    for entry in CONTENDERS:
        figures = result["contenders"].get(entry.name)
        if figures is None:
            continue
        rows.append((entry.label, *([NOTHING] * 5 if "error" in figures else _cells(figures))))
    counts = [len(figures["all"]["import"]) for figures in result["contenders"].values() if "all" in figures]
    note = (
        f"Medians of {max(counts, default=0)}, all in fresh processes. The first step is of 784-200-80-10 with batches "
        "of 256, from the library's import to the end of the step, NumPy being imported and the images being there "
        "already; in the second process caches hold what the first has compiled. Memory: the most that a process with "
        f"{result['rows']:,} images takes in a short training. Installed: files of the package and of all it requires; "
        "PyTorch compile also needs a C++ compiler."
    )
    return [markdown(rows, right=[1, 2, 3, 4, 5]), note]


def _cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = [f"{figures[name]:.2f} s" for name in ("import", "cold", "warm")]
    disk = f"{figures['disk'] / 1e6:,.0f} MB" if figures["disk"] else NOTHING
    return (*seconds, f"{figures['memory'] / 1e6:,.0f} MB", disk)
