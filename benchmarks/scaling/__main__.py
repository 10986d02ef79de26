"""``python -m benchmarks.scaling [measure | model | page]``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import benchmarks.scaling
from benchmarks.peers.cores import usable
from benchmarks.peers.results import machine
from benchmarks.scaling import report
from benchmarks.scaling.measure import study
from benchmarks.scaling.model import CLUSTERS
from nnbackend.support.files import atomic_write

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[2]
RESULT = _ROOT / "benchmarks" / "results" / "scaling" / "scaling.json"
PAGE = _ROOT / "docs" / "scaling.md"

#: `page` replaces the text between these markers.
_MARKS = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and store the results; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.what == "measure":
        result = _study(options)
        print(report.measured(result))
        if not options.quick:
            with atomic_write(options.out) as stream:
                stream.write(json.dumps(result, indent=1).encode() + b"\n")
        return 0
    if not options.out.exists():
        print(f"nothing has been measured yet: {options.out} does not exist", file=sys.stderr)
        return 2
    result = json.loads(options.out.read_text())
    if options.what == "page":
        text = _MARKS.sub(lambda marks: f"{marks[1]}{_figures(result)}\n{marks[2]}", PAGE.read_text())
        with atomic_write(PAGE) as stream:
            stream.write(text.encode())
        print(*report.draw(result), sep="\n")
    else:
        print(_figures(result))
    return 0


def _study(options: argparse.Namespace) -> dict[str, Any]:
    most = options.ranks or usable()
    ranks = tuple(size for size in (1, 2, 4, 8, 16, 32, 64) if size <= most)
    rounds, seconds = (1, 0.05) if options.quick else (options.rounds, options.seconds)
    runs = study(ranks, rounds, seconds, options.backend)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, "machine": machine(), "backend": options.backend, "rounds": rounds, "runs": runs}


def _figures(result: Mapping[str, Any]) -> str:
    network = report.local_network(result)
    parts = [
        f"Measured on {result['date'][:10]} with `--backend {result['backend']}`, {result['machine']['cpu']}, "
        f"{result['machine']['cores']} cores, one per rank; medians of {result['rounds']} rounds:",
        _block(report.measured(result)),
        f"The model for several ranks of that machine, with a latency of {network.latency * 1e6:.0f} us and "
        f"{network.bandwidth / 1e9:.1f} GB/s between them, derived from the sums:",
        _block(report.check(result)),
    ]
    for name, cluster in CLUSTERS.items():
        parts.append(f"Predicted speedups over one rank, ranks of one such core, {cluster.name} ({name}):")
        parts.append(_block(report.predicted(partial(report.rank_of, result), cluster)))
    parts.append("Predicted for one GPU per rank, without measurements: an H100's roofline, 100 Gbit/s InfiniBand:")
    parts.append(_block(report.predicted(report.gpu, CLUSTERS["infiniband"])))
    return "\n\n".join(parts)


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=benchmarks.scaling.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=("measure", "model", "page"), default="measure")
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--ranks", type=int, help="largest number of ranks (default: the number of cores)")
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements of each (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per measurement (default: 1)")
    parser.add_argument("--quick", action="store_true", help="only test that it runs; stores nothing")
    parser.add_argument("--out", type=Path, default=RESULT, help="file for the result")
    return parser


if __name__ == "__main__":
    sys.exit(main())
