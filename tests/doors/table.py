"""Reads and prints the table of kinds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COLUMNS", "Row", "printed", "read"]

PATH = Path(__file__).with_name("table.txt")
COLUMNS = ("network", "classifier", "regressor")
_HEAD = ("", "kind", *COLUMNS, "why, if not taken by all")


@dataclass(frozen=True)
class Row:
    """What the doors of networks and estimators do with a kind of input, see `Outcome`; and why not all take it."""

    network: str
    classifier: str
    regressor: str
    reason: str


def read() -> dict[tuple[str, str], Row]:
    """The rows of the table, by role ("x" or "y") and name of the kind."""
    lines = PATH.read_text(encoding="utf-8").splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    return {(role, name): Row(*cells) for role, name, *cells in rows}


def printed(rows: Iterable[tuple[str, str, Row]]) -> str:
    """The table as text."""
    table = [_HEAD, *((role, name, row.network, row.classifier, row.regressor, row.reason) for role, name, row in rows)]
    widths = [max(len(cells[place]) for cells in table) for place in range(len(_HEAD))]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table
    ]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"
