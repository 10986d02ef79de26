"""Run the attacks, and print what came of them."""

from __future__ import annotations

import argparse
import errno
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.attacks.damage import damage_files
from benchmarks.attacks.disk import fill_the_disk
from benchmarks.attacks.ranks import fail_ranks, mpi_is_missing
from benchmarks.attacks.system import MEMORY
from benchmarks.attacks.two_runs import PAIRS, start_two
from benchmarks.attacks.writes import WORKS, kill_at_every_write
from tests.fuzz.targets.hostile_folder import HostileFolderTarget
from tests.fuzz.trial import try_inputs

__all__ = ["ATTACKS", "main"]

#: The results of an attack on one kind of work: its name, how it was tried, and what was wrong.
Result = tuple[str, str, list[str]]

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _writes(count: int, seed: int) -> Iterator[Result]:
    # There are at most 100 operations in each kind of work.
    every = max(1, 100 // count)
    for name, work in WORKS.items():
        tried, wrong = kill_at_every_write(work, every, seed % every)
        yield name, f"killed at {tried} of its operations on files", wrong


def _disk(count: int, seed: int) -> Iterator[Result]:
    for code in _CODES:
        for length in ("for a moment", "for good"):
            tried, wrong = fill_the_disk(code, length, max(1, 100 // count))
            yield f"{errno.errorcode[code]} {length}", f"began at {tried} of the operations on files of a run", wrong


def _damage(count: int, seed: int) -> Iterator[Result]:
    outcomes, wrong = damage_files(count, seed)
    yield "a damaged file", f"{count} runs resumed: {_text(outcomes)}", wrong


def _two_runs(count: int, seed: int) -> Iterator[Result]:
    for name in PAIRS:
        outcomes, wrong = start_two(name, count, seed)
        yield name, f"started {count} times in one folder: {_text(outcomes)}", wrong


def _folders(count: int, seed: int) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        target = HostileFolderTarget(Path(folder))
        tally = try_inputs(target, seed, lambda done: done >= count)
    found = [f"{finding.data!r}: {finding.what}" for finding in tally.findings]
    read = tally.outcomes["read"]
    yield (
        "a folder from a stranger",
        f"{count} folders, 4 commands in each: {read} used by at least one command, {count - read} refused by all or "
        f"wrong, the slowest took {1000 * tally.slowest:.0f} ms",
        found,
    )


def _ranks(count: int, seed: int) -> Iterator[Result]:
    if mpi_is_missing():
        yield "a rank fails", 'not tried: needs mpi4py and its mpiexec, pip install -e ".[mpi]"', []
        return
    outcomes, wrong = fail_ranks(count, seed)
    yield "a rank fails", f"{count} runs of 2 and 3 ranks, resumed with 1 to 3: {_text(outcomes)}", wrong


def _text(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))


ATTACKS = {
    "writes": _writes,
    "disk": _disk,
    "damage": _damage,
    "two-runs": _two_runs,
    "folders": _folders,
    "ranks": _ranks,
}


def main() -> int:
    """Run the attacks that were chosen and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"{', '.join(ATTACKS)} (default: all)")
    parser.add_argument("--count", type=int, default=50, help="attempts of each kind (default: 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a file for what is printed")
    options = parser.parse_args()
    if unknown := set(options.attacks) - set(ATTACKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    names = options.attacks or list(ATTACKS)
    lines = [
        f"{time.strftime('%Y-%m-%d')}: python -m benchmarks.attacks {' '.join(names)} --count {options.count} --seed "
        f"{options.seed}; Python {platform.python_version()}, NumPy {np.__version__}"
    ]
    print(lines[0], flush=True)
    failed = False
    for name in names:
        for what, tried, wrong in ATTACKS[name](options.count, options.seed):
            lines.append(f"{what}: {tried}; {len(wrong) or 'nothing'} wrong")
            lines += [f"    {text}" for text in wrong]
            print("\n".join(lines[-1 - len(wrong) :]), flush=True)
            failed = failed or bool(wrong)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
