"""Markdown tables with aligned columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["NOTHING", "markdown", "ratio"]

#: The text of missing values.
NOTHING = "-"


def markdown(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """A table; the first row is the header, and columns in `right` are right-aligned."""
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths, right) for row in rows]
    rule = ["-" * (width - 1) + (":" if index in right else "-") for index, width in enumerate(widths)]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    cells = [
        cell.rjust(width) if index in right else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"| {' | '.join(cells)} |"


def ratio(value: float | None) -> str:
    """A ratio as text."""
    return NOTHING if value is None else f"{value:.2f}x"
