"""Measure one rank and several on this machine, each on its own core."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.works import NETS

__all__ = ["Plan", "plans", "study"]

#: Multiples of the network's batch size, on one rank, to which the model's speed is fitted.
_FITTED = (0.25, 0.5, 1, 2, 4)


@dataclass(frozen=True)
class Plan:
    """A measurement: "fit", "strong" (constant batch) or "weak" (constant rows per rank)."""

    kind: str
    net: str
    ranks: int
    batch: int


def plans(ranks: tuple[int, ...]) -> Iterator[Plan]:
    """All measurements of a study."""
    for work in NETS:
        for factor in _FITTED:
            yield Plan("fit", work.name, 1, round(work.batch_size * factor))
        for size in ranks:
            yield Plan("strong", work.name, size, work.batch_size)
            yield Plan("weak", work.name, size, work.batch_size * size)


def study(ranks: tuple[int, ...], rounds: int, seconds: float, backend: str) -> list[dict[str, Any]]:
    """Run all measurements in alternating rounds, so that disturbances affect all alike; returns medians."""
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for turn in range(rounds):
        tried = set()
        for plan in plans(ranks):
            key = (plan.net, plan.ranks, plan.batch)
            if key not in tried:
                tried.add(key)
                print(f"round {turn + 1} of {rounds}, {plan.net}: {plan.ranks} x {plan.batch}", file=sys.stderr)
                found.setdefault(key, []).append(measure(plan, seconds, backend))
    return [{"kind": plan.kind, **_medians(found[plan.net, plan.ranks, plan.batch])} for plan in plans(ranks)]


def _medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    return {**rounds[0], **{what: statistics.median(one[what] for one in rounds) for what in ("step", "apart", "sum")}}


def measure(plan: Plan, seconds: float, backend: str) -> dict[str, Any]:
    """Run one measurement, and return the results of rank 0.

    Raises
    ------
    RuntimeError
        It failed.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    if launcher is None:
        raise RuntimeError('there is no mpiexec: pip install -e ".[mpi]"')
    program = ["-m", "benchmarks.scaling.worker", plan.net, str(plan.batch), str(seconds), backend]
    # Bind ranks, so that a single rank has as many cores as each of several.
    command = [launcher, "-bind-to", "core", "-n", str(plan.ranks), sys.executable, *program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
