"""Measure several commits in turns, so that a busy minute of the machine does not look like a slow commit.

A sitting may be stopped at any time: the next call continues with what is missing.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.history.exports import Export, Request
from benchmarks.history.suite import BACKENDS, NETS, ROWS
from nnbackend.support.files import atomic_write

__all__ = ["GROUPS", "ONCE", "Results", "Rounds", "Sitting", "best", "name_of"]

#: Results of a commit by benchmark and parameters; None is n/a.
Results = dict[str, float | None]

#: What the rounds measured, by benchmark and parameters; None is n/a.
Rounds = dict[str, list[float | None]]


def name_of(request: Request) -> str:
    """The benchmark and its parameters as one string."""
    return " ".join([request[0], *request[1]])


def best(rounds: Rounds) -> Results:
    """The best of the rounds: other programs can only lengthen a measurement."""
    results: Results = {}
    for name, values in rounds.items():
        numbers = [value for value in values if value is not None]
        choose = max if "samples_per_second" in name else min
        results[name] = choose(numbers) if numbers else None
    return results


def _on(backend: str) -> list[Request]:
    methods = [("Training.track_seconds_per_step", NETS), ("Training.track_samples_per_second", NETS)]
    methods.append(("Predicting.track_seconds", ROWS))
    # Benchmarks of the same suite and parameters share one measurement, if they follow each other.
    return [(name, [backend, value]) for name, values in methods for value in values]


#: What one process measures: processes of one backend have no threads of another.
GROUPS: dict[str, list[Request]] = {
    **{backend: _on(backend) for backend in BACKENDS},
    "processes": [("Import.track_seconds", [])],
    **{f"first run, {backend}": [("FirstRun.track_seconds", [backend])] for backend in BACKENDS},
}

#: Measured in the first round only, because they take longest.
ONCE = tuple(name for name in GROUPS if name.startswith("first run"))

#: Seconds of a measurement that is only there to compile.
_COMPILING = 0.0


@dataclass
class _Measured:
    """What the rounds of a sitting have measured; a file of JSON."""

    #: The state of another sitting is not continued.
    plan: dict[str, object]
    compiled: list[str] = field(default_factory=list)
    #: For each commit, round and group the results.
    values: dict[str, list[float | None]] = field(default_factory=dict)


class Sitting:
    """Measurements of commits in turns.

    Parameters
    ----------
    commits : sequence of str
        Full hashes.
    rounds : int
        Odd rounds go through the commits in the opposite order.
    seconds : float
        Seconds of each measurement.
    folder : Path
        Holds the packages of the commits, their compiled code and what has been measured, until :meth:`remove`.
    groups : collection of str
        Names of the :data:`GROUPS` to measure.
    """

    def __init__(
        self, commits: Sequence[str], rounds: int, seconds: float, folder: Path, groups: Collection[str] = GROUPS
    ) -> None:
        self.exports = {commit: Export(commit, folder) for commit in commits}
        self.rounds = rounds
        self.seconds = seconds
        self.folder = folder
        self.groups = [name for name in GROUPS if name in groups]
        self._file = folder / "measured.json"
        plan: dict[str, object] = {
            "commits": list(commits),
            "rounds": rounds,
            "seconds": seconds,
            "groups": self.groups,
        }
        self._measured = _Measured(plan)
        if self._file.exists():
            earlier = _Measured(**json.loads(self._file.read_text(encoding="utf-8")))
            # Compiled code serves every plan; measurements are of one.
            self._measured.compiled = earlier.compiled
            if earlier.plan == plan:
                self._measured = earlier

    def compile(self) -> None:
        """Compile the code of every commit, so that only first runs compile later; the machine may be busy."""
        for commit, export in self.exports.items():
            export.create()
            for group in self.groups:
                if group in ONCE:
                    continue
                mark = f"{commit} {group}"
                if mark not in self._measured.compiled:
                    export.measure(GROUPS[group], _COMPILING)
                    self._measured.compiled.append(mark)
                    self._save()

    def measure(self, progress: bool = True) -> dict[str, Rounds]:
        """Measure what is missing, and return what each round has measured of each commit."""
        for export in self.exports.values():
            export.create()
        start, steps = time.perf_counter(), list(self._steps())
        for index, (mark, commit, group) in enumerate(steps):
            if mark in self._measured.values or self._cannot_run(commit, group):
                continue
            self._measured.values[mark] = self.exports[commit].measure(GROUPS[group], self.seconds)
            self._save()
            if progress:
                seconds = time.perf_counter() - start
                print(f"{index + 1}/{len(steps)}, {seconds:.0f} s: {commit[:8]}, {group}", flush=True)
        return {commit: self._rounds_of(commit) for commit in self.exports}

    def remove(self) -> None:
        """Remove all files of the sitting."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> Iterator[tuple[str, str, str]]:
        """(mark, commit, group) of every measurement, in the order in which they are made."""
        for index in range(self.rounds):
            commits = list(self.exports)
            for commit in commits[::-1] if index % 2 else commits:
                for group in self.groups:
                    if index == 0 or group not in ONCE:
                        yield f"{commit} {group} {index}", commit, group

    def _cannot_run(self, commit: str, group: str) -> bool:
        """Whether the backend of the group could not run in the first round."""
        first = self._measured.values.get(f"{commit} {group} 0")
        return first is not None and all(value is None for value in first)

    def _rounds_of(self, commit: str) -> Rounds:
        found: Rounds = {}
        for mark, each, group in self._steps():
            if each == commit and mark in self._measured.values:
                for request, value in zip(GROUPS[group], self._measured.values[mark], strict=True):
                    found.setdefault(name_of(request), []).append(value)
        return found

    def _save(self) -> None:
        with atomic_write(self._file) as file:
            file.write(json.dumps(vars(self._measured)).encode())
