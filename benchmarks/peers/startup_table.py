"""The table of `startup`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.entries import CONTENDERS
from benchmarks.peers.markdown import NOTHING, markdown

__all__ = ["body"]


def body(result: Mapping[str, Any]) -> list[str]:
    """The table and an explanation of its columns."""
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
        f"Medians of {max(counts, default=0)}, all in new processes. The first step is one of 784-200-80-10 with a "
        "batch of 256, timed from the library's import to the end of the step, after loading NumPy and the images; "
        "the second process loads compiled code from the caches. Memory: the peak of a process with "
        f"{result['rows']:,} images in a short training. Installed: files of the package and of all its requirements; "
        "PyTorch compile also needs a C++ compiler."
    )
    return [markdown(rows, right=[1, 2, 3, 4, 5]), note]


def _cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = [f"{figures[name]:.2f} s" for name in ("import", "cold", "warm")]
    disk = f"{figures['disk'] / 1e6:,.0f} MB" if figures["disk"] else NOTHING
    return (*seconds, f"{figures['memory'] / 1e6:,.0f} MB", disk)
