"""A history as a table for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnbackend.support.html import table
from nnbackend.training.progress import COLUMNS, cells

if TYPE_CHECKING:
    from nnbackend.training.history import History

__all__ = ["history_html"]

#: Of a longer history, so many of its first and of its last epochs are shown.
_ENDS = 8


def history_html(history: History) -> str:
    """The table that training prints, with its middle left out if it is long, and how the run ended."""
    count = len(history)
    names = [name for name in COLUMNS if name in history.names()]
    rows = [_row(metrics, names) for metrics in history.epochs]
    if count > 2 * _ENDS + 1:
        rows[_ENDS:-_ENDS] = [["..."] + [""] * (len(names) - 1)]
    return table(
        f"{count:,} epoch{'' if count == 1 else 's'}",
        [COLUMNS[name][0] for name in names],
        rows,
        "r" * len(names),
        note=_ending(history),
    )


def _row(metrics: Mapping[str, float], names: list[str]) -> list[str]:
    texts = cells(metrics)
    return [texts.get(name, "") for name in names]


def _ending(history: History) -> str:
    if history.interrupted:
        return "ended by Ctrl-C"
    return f"ended by {history.stopped_by}" if history.stopped_by else ""
