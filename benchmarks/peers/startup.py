"""`startup`: the time before training starts, and the memory and disk space of each library."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import results
from benchmarks.peers.cores import environment
from benchmarks.peers.entries import Entry
from benchmarks.peers.install_size import install_bytes
from benchmarks.peers.rounds import say
from benchmarks.peers.works import ROWS

__all__ = ["REPEATS", "run"]

REPEATS = 5
_STEPS = 50
_QUICK = {"repeats": 1, "rows": 1_000, "steps": 2}

#: Folders in which libraries cache compiled code: emptied before the first process, kept for the second.
_CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")

_IMPORT = """
import time
begin = time.perf_counter()
{importing}
print(time.perf_counter() - begin)
"""


def run(
    entries: Sequence[Entry], threads: int, folder: Path, *, repeats: int | None = None, quick: bool = False
) -> dict[str, Any]:
    """Measure in new processes, in alternating rounds.

    Parameters
    ----------
    entries : sequence of Entry
    threads : int
    folder : Path
    repeats : int, optional
    quick : bool

    Returns
    -------
    dict
        The stored results.
    """
    repeats = repeats or (_QUICK["repeats"] if quick else REPEATS)
    rows, steps = (_QUICK["rows"], _QUICK["steps"]) if quick else (ROWS, _STEPS)
    seen: dict[str, dict[str, list[float]]] = {
        entry.name: {figure: [] for figure in ("import", "cold", "warm", "memory")} for entry in entries
    }
    failed: dict[str, str] = {}
    for repeat in range(repeats):
        for entry in entries:
            if entry.name in failed:
                continue
            say(f"  {entry.name}: {repeat + 1} of {repeats}")
            try:
                for figure, value in _once(entry, threads, rows, steps).items():
                    seen[entry.name][figure].append(value)
            except subprocess.CalledProcessError as error:
                failed[entry.name] = _last_line(error.stderr)
    result = results.header("startup", threads, list(entries)) | {"quick": quick, "rows": rows, "contenders": {}}
    for entry in entries:
        if entry.name in failed:
            result["contenders"][entry.name] = {"error": failed[entry.name]}
        else:
            medians = {figure: statistics.median(values) for figure, values in seen[entry.name].items()}
            result["contenders"][entry.name] = {
                **medians,
                "all": seen[entry.name],
                "disk": install_bytes(entry.distribution),
            }
    results.write(folder, result)
    return result


def _once(entry: Entry, threads: int, rows: int, steps: int) -> dict[str, float]:
    """Measure an import, a process with an empty cache, and a process that loads compiled code from the cache."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        surroundings = environment(threads) | {name: str(Path(folder, name)) for name in _CACHES}
        imported = float(_python(["-c", _IMPORT.format(importing=entry.importing)], surroundings))
        arguments = ["-m", "benchmarks.peers.once", entry.name, str(threads), str(rows)]
        cold = json.loads(_python([*arguments, "0"], surroundings))
        warm = json.loads(_python([*arguments, str(steps)], surroundings))
    return {"import": imported, "cold": cold["first_step"], "warm": warm["first_step"], "memory": warm["memory"]}


def _python(arguments: Sequence[str], surroundings: Mapping[str, str]) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=dict(surroundings), check=True, capture_output=True, text=True).stdout


def _last_line(errors: str) -> str:
    return next((line for line in reversed(errors.splitlines()) if line.strip()), "it failed without a message")
