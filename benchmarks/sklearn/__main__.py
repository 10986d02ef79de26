"""``python -m benchmarks.sklearn [measure | table]``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import benchmarks.sklearn
from benchmarks.peers.cores import usable
from benchmarks.peers.results import machine, write_to
from benchmarks.sklearn import table
from benchmarks.sklearn.contest import contest
from benchmarks.sklearn.tasks import TASKS

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parents[1] / "results" / "sklearn"

_VERSIONS = ("scikit-learn", "numpy", "numba")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the results; returns the exit code."""
    options = _parser().parse_args(arguments)
    folder = Path(options.out or (tempfile.mkdtemp(prefix="sklearn-") if options.quick else FOLDER))
    if options.what == "table":
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        print("\n\n".join(map(table.text, found)) or "nothing has been measured yet")
        return 0
    tasks = [task for task in TASKS if not options.data or task.name in options.data]
    rounds = options.rounds or (1 if options.quick else 9)
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.sklearn", *(sys.argv[1:] if arguments is None else arguments)]),
        "machine": machine(),
        "threads": options.threads,
        "dtype": options.dtype,
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in _VERSIONS}},
        "quick": options.quick,
        "tasks": contest(options.contenders, tasks, options.threads, options.dtype, rounds, options.quick),
    }
    path = folder / f"{options.dtype}-threads-{options.threads}.json"
    write_to(path, result)
    print(f"{table.text(result)}\n\nkept in {path.name}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sklearn",
        description=benchmarks.sklearn.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", default="measure", choices=["measure", "table"])
    parser.add_argument("--contenders", nargs="+", default=["numba", "numpy"], metavar="BACKEND", help="default: both")
    parser.add_argument("--data", nargs="+", choices=[task.name for task in TASKS], help="only these (default: all)")
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--threads", type=int, default=usable(), choices=range(1, usable() + 1), metavar="N")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 9")
    parser.add_argument("--out", metavar="FOLDER", help="of results (default: benchmarks/results/sklearn)")
    parser.add_argument("--quick", action="store_true", help="test that it runs; the results are meaningless")
    return parser


if __name__ == "__main__":
    sys.exit(main())
