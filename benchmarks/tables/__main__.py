"""``python -m benchmarks.tables [fetch | measure | table | picture | seconds | ablation]``."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import benchmarks.tables
from benchmarks.tables import ablation, report
from benchmarks.tables.contenders import CONTENDERS, Make, usable
from benchmarks.tables.data import QUICK, TIMED, Table, fetch, tables

__all__ = ["main"]

#: What reads or adds to the results of `measure`.
_OF_TABLES = ("measure", "table", "picture")

FOLDER = Path(__file__).resolve().parents[1] / "results" / "tables"

_PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "tables.png"

_TESTED = 0.25


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the results; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.what == "fetch":
        fetch(Path(options.data or options.folder or "build/tables"))
        return 0
    name = "quick" if options.quick else "tables" if options.what in _OF_TABLES else options.what
    path = Path(options.out) if options.out else FOLDER / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if options.what == "ablation":
        names = options.tables or ablation.TABLES
        chosen = [table for table in _chosen(options) if table.tuned_on and table.name in names]
        makers = {name: ablation.contender(name) for name in ablation.VARIANTS}
        _measure(chosen, options.splits or 1, {**CONTENDERS, **makers}, options.contenders or list(makers), path)
        print(ablation.text(_read(path)))
        return 0
    if options.what in ("measure", "seconds"):
        splits = options.splits or (2 if options.quick else 5)
        _measure(_chosen(options), splits, CONTENDERS, options.contenders or usable(), path)
    results = _read(path)
    if options.what == "picture":
        report.draw(results, _PICTURE)
        print(f"wrote {_PICTURE}")
        return 0
    shown = report.seconds if options.what == "seconds" else report.markdown if options.markdown else report.text
    print(shown(results) or "nothing has been measured yet")
    return 0


def _chosen(options: argparse.Namespace) -> list[Table]:
    """The tables that the options ask for."""
    found = tables(Path(options.data or "build/tables"))
    names = options.tables or (QUICK if options.quick else TIMED if options.what == "seconds" else None)
    return [
        table for table in found
        if (not options.kind or table.kind == options.kind)
        and (names is None or table.name in names)
        and (options.half is None or table.tuned_on == (options.half == "tuned"))
    ]  # fmt: skip


def _measure(
    chosen: Sequence[Table], splits: int, makers: Mapping[str, Make], contenders: Sequence[str], path: Path
) -> None:
    """Append to the file what it does not have yet: one line for each table, split and contender."""
    warnings.simplefilter("ignore")
    done = {(each["table"], each["split"], each["contender"]) for each in _read(path)}
    for split in range(splits):
        for table in chosen:
            missing = {name: makers[name] for name in contenders if (table.name, split, name) not in done}
            if missing:
                _measure_split(table, split, missing, path)


def _measure_split(table: Table, split: int, contenders: Mapping[str, Make], path: Path) -> None:
    """Train contenders on one split of a table."""
    from sklearn.model_selection import train_test_split

    x, y = table.read()
    alike = None if table.is_regression or min(np.unique(y, return_counts=True)[1]) < 2 else y
    parts = train_test_split(x, y, test_size=_TESTED, random_state=split, stratify=alike)
    for name, make in contenders.items():
        model = make(table.is_regression, x, split)
        begin = time.perf_counter()
        model.fit(parts[0], parts[2])
        seconds = time.perf_counter() - begin
        error = _error(table, parts[3], model.predict(parts[1]), float(np.std(parts[2])) if table.is_regression else 1)
        line = {
            "table": table.name, "kind": table.kind, "tuned_on": table.tuned_on, "rows": len(x), "split": split,
            "contender": name, "error": error, "seconds": seconds,
        }  # fmt: skip
        with path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(f"{table.name}, split {split}: {name} {error:.4f} in {seconds:.1f} s", file=sys.stderr)


def _error(table: Table, true: Any, predicted: Any, unit: float) -> float:
    """The error of predictions; see the documentation of the package."""
    if table.is_regression:
        return float(np.sqrt(np.mean((np.asarray(true) - predicted) ** 2)) / unit)
    wrong = np.asarray(true) != predicted
    if table.kind == "balanced":
        return float(wrong.mean())
    return float(np.mean([wrong[np.asarray(true) == each].mean() for each in np.unique(true)]))


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables",
        description=benchmarks.tables.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", default="measure", choices=["fetch", "ablation", "seconds", *_OF_TABLES])
    parser.add_argument("folder", nargs="?", help="for fetch: where the tables go (default: build/tables)")
    parser.add_argument("--data", metavar="FOLDER", help="with the tables (default: build/tables)")
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--kind", choices=["balanced", "unbalanced", "regression"], help="only tables of this kind")
    parser.add_argument("--half", choices=["tuned", "other"], help="only tables on which defaults were chosen, or not")
    parser.add_argument("--contenders", nargs="+", choices=[*CONTENDERS, *ablation.VARIANTS], metavar="NAME")
    parser.add_argument("--splits", type=int, metavar="N", help="default: 5")
    parser.add_argument("--out", metavar="FILE", help="of results (default: in benchmarks/results/tables)")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument("--quick", action="store_true", help="a few small tables, two splits")
    return parser


if __name__ == "__main__":
    sys.exit(main())
