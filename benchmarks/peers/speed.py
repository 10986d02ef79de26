"""`nets`, `sweep` and `images`: the time of a training step."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import results, works
from benchmarks.peers.entries import LIMITS, REFERENCES, Entry
from benchmarks.peers.process import start_workers
from benchmarks.peers.rounds import measure, say
from benchmarks.peers.works import Work

__all__ = ["ROUNDS", "run"]

ROUNDS = 9
_QUICK_ROUNDS = 2


def run(
    kind: str, entries: Sequence[Entry], threads: int, folder: Path, *, rounds: int | None = None, quick: bool = False
) -> dict[str, Any]:
    """Measure, and store the results after every network.

    Parameters
    ----------
    kind : {"nets", "sweep", "images"}
    entries : sequence of Entry
        The contenders, which must be installed.
    threads : int
    folder : Path
        Folder of the results.
    rounds : int, optional
    quick : bool
        Only test that it runs, with very small work.

    Returns
    -------
    dict
        The stored results.
    """
    chosen = _chosen(kind, quick)
    result = results.header(kind, threads, list(entries)) | {"quick": quick, "failed": {}, "works": []}
    with contextlib.ExitStack() as stack:
        needed = {entry.reference for entry in entries}
        everybody = (*(each for each in REFERENCES if each.name in needed), *LIMITS, *entries)
        rows = max(work.rows for work in chosen)
        workers = start_workers(everybody, threads, rows, stack, result["failed"], say)
        result["data"] = next(iter(workers.values())).hello["data"]
        result["blas"] = {name: worker.hello["blas"] for name, worker in workers.items()}
        for work in chosen:
            measured = measure(work, workers, rounds or (_QUICK_ROUNDS if quick else ROUNDS))
            result["works"].append(measured)
            result["restless"] = [name for name, worker in workers.items() if worker.restless]
            results.write(folder, result)
    return result


def _chosen(kind: str, quick: bool) -> list[Work]:
    everything = {"nets": works.NETS, "sweep": works.SWEEP, "images": works.IMAGES}[kind]
    if not quick:
        return list(everything)
    # A quick run uses only a few kinds of steps.
    return [works.quick(work) for work in ((everything[1], everything[6]) if kind == "sweep" else everything[:3])]
