"""The commands of this package."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.history import page, store
from benchmarks.history.compare import compare
from benchmarks.history.exports import ROOT, resolve
from benchmarks.history.sitting import GROUPS, Results, Sitting, best
from benchmarks.peers.markdown import NOTHING, markdown

_COMMITS = Path(__file__).with_name("commits.txt")
_WORK = ROOT / ".asv" / "history"

#: What the table of `run` shows: heading, key of the result, factor.
_COLUMNS = (
    ("us/step numba", "Training.track_seconds_per_step numba 784-200-80-10", 1e6),
    ("us/step numpy", "Training.track_seconds_per_step numpy 784-200-80-10", 1e6),
    ("predict 1 row, us", "Predicting.track_seconds numba 1", 1e6),
    ("predict 1,000 rows, us", "Predicting.track_seconds numba 1000", 1e6),
    ("first run, s", "FirstRun.track_seconds numba", 1.0),
    ("import, ms", "Import.track_seconds", 1e3),
)


def commits_to_measure(machine: str | None) -> list[str]:
    """The commits of `commits.txt`, and those that have results already."""
    lines = _COMMITS.read_text(encoding="utf-8").splitlines()
    listed = [resolve(line.split()[0]) for line in lines if line and not line.startswith("#")]
    added = [] if machine is None else store.stored(machine)
    return [*listed, *(commit for commit in added if commit not in listed)]


def table(results: dict[str, Results]) -> str:
    """Some of the results, a row for each commit."""
    rows = [["commit", *(heading for heading, _, _ in _COLUMNS)]]
    for commit, found in results.items():
        values = [(found.get(key), factor) for _, key, factor in _COLUMNS]
        rows.append([commit[:8], *(NOTHING if value is None else f"{value * factor:.4g}" for value, factor in values)])
    return markdown(rows, right=range(1, len(rows[0])))


def run(options: argparse.Namespace) -> None:
    """Measure all commits in one sitting, and store the results."""
    machine = store.machine_of(options.machine)
    commits = commits_to_measure(machine["machine"])
    sitting = Sitting(commits, options.rounds, options.seconds, options.work, options.only or GROUPS)
    sitting.compile()
    if options.compile:
        return
    for commit, rounds in sitting.measure().items():
        store.write(commit, rounds, machine)
    print(table(store.stored(machine["machine"])))
    sitting.remove()


def quick(options: argparse.Namespace) -> None:
    """The first and the last commits with very short measurements, to try whether everything runs; stores nothing."""
    commits = commits_to_measure(None)
    sitting = Sitting([commits[0], commits[-1]], 1, 0.01, options.work / "quick")
    print(table({commit: best(rounds) for commit, rounds in sitting.measure().items()}))
    sitting.remove()


def add(options: argparse.Namespace) -> None:
    """Measure a commit beside the newest stored one, and store its results."""
    machine = store.machine_of(options.machine)
    commit = resolve(options.commit)
    known = store.stored(machine["machine"])
    last = next((each for each in reversed(known) if each != commit), None)
    sitting = Sitting([*([last] if last else []), commit], options.rounds, options.seconds, options.work / "add")
    sitting.compile()
    rounds = sitting.measure()
    results = {each: best(values) for each, values in rounds.items()}
    print(table(results))
    if last:
        for heading, key, _ in _COLUMNS:
            before, now = known[last].get(key), results[last].get(key)
            if before and now:
                print(f"{last[:8]}, {heading}: {now / before - 1:+.1%} beside its stored result")
    print(f"stored in {store.write(commit, rounds[commit], machine).relative_to(ROOT)}")
    sitting.remove()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history")
    commands = parser.add_subparsers(required=True)
    for name, function in (("run", run), ("add", add), ("compare", None), ("publish", None)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        if function:
            command.add_argument("--rounds", type=int, default=3, help="a result is the best of the rounds")
            command.add_argument("--seconds", type=float, default=0.4, help="seconds of each measurement")
            command.add_argument("--machine", help="a name for this machine")
            command.add_argument("--work", type=Path, default=_WORK, help="folder for packages and compiled code")
        if name == "run":
            command.add_argument("--compile", action="store_true", help="compile only; the machine may be busy")
            command.add_argument("--only", action="append", choices=GROUPS, help="measure only this; may be repeated")
            command.add_argument("--quick", dest="function", action="store_const", const=quick, help="try two commits")
        elif name == "add":
            command.add_argument("commit", nargs="?", default="HEAD")
        elif name == "compare":
            command.add_argument("base", nargs="?", default=os.environ.get("BASE") or "HEAD^")
            command.add_argument("--seconds", type=float, default=60, help="roughly, for everything")
            command.set_defaults(function=lambda options: compare(options.base, options.seconds))
        else:
            command.set_defaults(function=lambda options: page.publish())
    options = parser.parse_args(arguments)
    try:
        options.function(options)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"benchmarks.history: {error}")


if __name__ == "__main__":
    main()
