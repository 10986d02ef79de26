"""What a commit made slower: two commits in alternation, for about a minute."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.history.exports import Export, Request, git, resolve
from benchmarks.history.sitting import GROUPS, name_of

__all__ = ["SLOWER", "compare", "report"]

#: Reported from this factor on.
SLOWER = 1.15

#: Enough to notice a change of each benchmark and backend. The first run uses an empty cache of its own.
_FIRST = GROUPS["first run, numba"]
_OTHERS: list[list[Request]] = [
    [
        ("Training.track_seconds_per_step", ["numba", "784-500-1000-300-10"]),
        ("Predicting.track_seconds", ["numba", "1"]),
        ("Predicting.track_seconds", ["numba", "1000"]),
    ],
    [
        ("Training.track_seconds_per_step", ["numpy", "784-200-80-10"]),
        ("Predicting.track_seconds", ["numpy", "1"]),
    ],
    GROUPS["processes"],
]
_SECONDS = 0.3

#: A factor of one round up to which it contradicts the others.
_CONTRADICTS = 1.05

#: A benchmark needs this many pairs of measurements to be called slower. The first run is measured no more often.
_FEWEST = 2
_ROUNDS = 3

#: Results of a benchmark in pairs: (the earlier commit, the later one).
Pairs = dict[str, list[tuple[float, float]]]


def compare(base: str, seconds: float) -> None:
    """Print what HEAD made slower than another commit."""
    try:
        commits = resolve(base), resolve("HEAD")
    except subprocess.CalledProcessError:
        print(f"no comparison of speed: this checkout has no commit {base}")
        return
    earlier, later = (commit[:8] for commit in commits)
    if not git("diff", "--name-only", *commits, "--", "nnbackend"):
        print(f"no comparison of speed: the package of {later} is that of {earlier}")
        return
    with tempfile.TemporaryDirectory() as folder:
        pairs = _measure([Export(commit, Path(folder)) for commit in commits], seconds)
    print(f"{later} beside {earlier}:")
    print("\n".join(report(pairs)))


def report(pairs: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """A line for each benchmark that became slower, and one that says how many were compared.

    A benchmark is slower if its median over the rounds and its best time are, and no round contradicts: other programs
    can only lengthen all times of one commit if they are busy whenever it is measured.
    """
    lines, undecided = [], 0
    for name, each in pairs.items():
        if len(each) < _FEWEST:
            undecided += 1
            continue
        before, after = zip(*each, strict=True)
        factors = [later / earlier for earlier, later in each]
        factor = median(factors)
        if factor > SLOWER and min(factors) > _CONTRADICTS and min(after) > SLOWER * min(before):
            lines.append(f"  {factor:.2f} times the time: {name} ({median(before):.4g}, now {median(after):.4g})")
    once = f"; {undecided} could be measured only once" if undecided else ""
    lines.append(f"  {len(lines) or 'none'} of {len(pairs)} benchmarks became more than {SLOWER - 1:.0%} slower{once}")
    return lines


def _measure(exports: Sequence[Export], seconds: float) -> Pairs:
    """Measure both commits in turns until the time is over, and at least three rounds, with code that is compiled."""
    pairs: Pairs = {}
    start = time.perf_counter()
    for export in exports:
        export.create()
    _add(pairs, exports, _FIRST)
    for export in exports:
        for group in _OTHERS:
            export.measure(group, 0.0)
    rounds = 0
    while rounds < _ROUNDS or time.perf_counter() - start < seconds:
        for group in _OTHERS:
            _add(pairs, exports, group, backwards=rounds % 2 == 1)
        rounds += 1
    _add(pairs, exports, _FIRST, backwards=True)
    return pairs


def _add(pairs: Pairs, exports: Sequence[Export], group: Sequence[Request], backwards: bool = False) -> None:
    """Measure both commits, in the opposite order if `backwards`."""
    order = exports[::-1] if backwards else exports
    results = [export.measure(group, _SECONDS) for export in order]
    for request, *values in zip(group, *(results[::-1] if backwards else results), strict=True):
        if None not in values:
            pairs.setdefault(name_of(request), []).append((values[0], values[1]))
