"""``python -m benchmarks.peers [WHAT]``.

WHAT is a kind of measurement, ``nets``, ``sweep``, ``images``, ``predictions``, ``products``, ``startup``,
``accuracy`` or ``fast99``, or what to do with the results: ``table``, ``roofline`` or ``page``. Without it, everything
is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.peers import accuracy, fast99, page, predictions, products, results, roofline, speed, startup, tables
from benchmarks.peers.cores import usable
from benchmarks.peers.entries import CONTENDERS, Entry, for_kind
from benchmarks.peers.options import positive, threads
from benchmarks.peers.rounds import say
from nnbackend.errors import DataError

__all__ = ["main"]

_KINDS = results.KINDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the results; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.what in _SHOWN:
        try:
            print(_SHOWN[options.what](Path(options.out or results.FOLDER)))
        except ImportError as error:
            sys.exit(str(error))
        return 0
    entries = _entries(options.contenders)
    folder = Path(options.out or (tempfile.mkdtemp(prefix="peers-") if options.quick else results.FOLDER))
    for kind in _KINDS if options.what == "all" else (options.what,):
        say(f"{kind}:")
        try:
            result = _measure(kind, for_kind(kind, entries), options, folder)
        except DataError as error:
            # All other measurements can use synthetic images.
            print(f"{kind}: skipped: {error}")
            continue
        print(f"{tables.text(result)}\n\nsaved in {results.path_of(folder, result).name}\n", flush=True)
    return 0


def _table(folder: Path) -> str:
    return "\n\n".join(tables.text(result) for result in results.read_all(folder)) or "nothing has been measured yet"


def _roofline(folder: Path) -> str:
    drawn = roofline.panels(results.read_all(folder))
    if not drawn:
        return "there are no results to draw yet"
    roofline.draw(drawn)
    missing = any(panel.bandwidth is None for panel in drawn)
    return f"{roofline.PICTURE.name}: drawn" + (f"; {roofline.NO_BANDWIDTH}" if missing else "")


def _page(folder: Path) -> str:
    return "\n".join(page.refresh(folder))


#: Actions on stored results.
_SHOWN = {"table": _table, "roofline": _roofline, "page": _page}


def _measure(kind: str, entries: list[Entry], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    quick, repeats = options.quick, options.rounds
    if kind == "predictions":
        return predictions.run(entries, options.threads, folder, rounds=repeats, quick=quick)
    if kind == "products":
        return products.run(folder, rounds=repeats, quick=quick)
    if kind == "startup":
        return startup.run(entries, options.threads, folder, repeats=repeats, quick=quick)
    if kind == "accuracy":
        return accuracy.run(entries, options.threads, partial(results.write, folder), seeds=repeats, quick=quick)
    if kind == "fast99":
        return fast99.run(entries, options.threads, partial(results.write, folder), seeds=repeats, quick=quick)
    return speed.run(kind, entries, options.threads, folder, rounds=repeats, quick=quick)


def _entries(names: Sequence[str] | None) -> list[Entry]:
    """The contenders to measure; a contender requested by name that is not installed is an error."""
    chosen = [entry for entry in CONTENDERS if not names or entry.name in names]
    missing = [entry.name for entry in chosen if not entry.installed]
    if missing and names:
        sys.exit(f"not installed: {', '.join(missing)}; pip install -e '.[peers]' installs all peers")
    for name in missing:
        say(f"{name} is not installed; skipped")
    return [entry for entry in chosen if entry.installed]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=peers.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=["all", *_KINDS, *_SHOWN],
        help="what to measure (default: everything), or what to do with the stored results",
    )
    parser.add_argument("--threads", type=threads, default=usable(), metavar="N", help="default: all cores")
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=[entry.name for entry in CONTENDERS],
        help="measure only these (default: all)",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        metavar="N",
        help="rounds, repeats or seeds (default: 25 for products, 5 for startup, accuracy and fast99, else 9)",
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder of the results (default: benchmarks/results/peers)")
    parser.add_argument("--quick", action="store_true", help="test that it runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
