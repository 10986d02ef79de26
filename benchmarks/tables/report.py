"""The results as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.peers.markdown import markdown as table
from benchmarks.tables.contenders import BASE, CONTENDERS

__all__ = ["markdown", "summary", "text"]

_ADDED = 0.01
_RESAMPLED = 2000

_HEAD = ("", "tables", "error ratio", "95 % interval", "fewer errors", "seconds")


def summary(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Groups of rows: classification and regression, all tables and those on which nothing was chosen."""
    groups = []
    for kind, regression in (("classification", False), ("regression", True)):
        for which, all_tables in (("all tables", True), ("tables on which no default was chosen", False)):
            chosen = [
                each for each in results
                if (each["kind"] == "regression") == regression and (all_tables or not each["tuned_on"])
            ]  # fmt: skip
            if rows := _rows(chosen):
                groups.append((f"{kind}, {which}", rows))
    return groups


def _rows(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    errors: dict[str, dict[str, list[float]]] = {}
    seconds: dict[str, dict[str, list[float]]] = {}
    for each in results:
        errors.setdefault(each["contender"], {}).setdefault(each["table"], []).append(each["error"])
        seconds.setdefault(each["contender"], {}).setdefault(each["table"], []).append(each["seconds"])
    base = errors.get(BASE, {})
    rows = []
    for name in CONTENDERS:
        shared = sorted(base.keys() & errors.get(name, {}).keys())
        if not shared:
            continue
        own = np.array([np.mean(errors[name][table]) for table in shared])
        theirs = np.array([np.mean(base[table]) for table in shared])
        logarithms = np.log((own + _ADDED) / (theirs + _ADDED))
        picks = np.random.default_rng(0).integers(0, len(shared), (_RESAMPLED, len(shared)))
        low, high = np.exp(np.quantile(logarithms[picks].mean(axis=1), [0.025, 0.975]))
        wins, losses = int((own < theirs).sum()), int((own > theirs).sum())
        time = float(np.mean([np.mean(seconds[name][table]) for table in shared]))
        mean = f"{np.exp(logarithms.mean()):.3f}"
        interval = "" if name == BASE else f"{low:.3f} to {high:.3f}"
        counted = "" if name == BASE else f"{wins} of {len(shared)}, more on {losses}"
        rows.append((name, str(len(shared)), mean, interval, counted, f"{time:.2f}"))
    return rows


def text(results: Sequence[Mapping[str, Any]]) -> str:
    """As text in columns."""
    lines = []
    for title, rows in summary(results):
        widths = [max(len(row[place]) for row in [_HEAD, *rows]) for place in range(len(_HEAD))]
        lines.append(title)
        for row in [_HEAD, *rows]:
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines.append("")
    return "\n".join(lines).rstrip()


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """As tables in Markdown."""
    lines = []
    for title, rows in summary(results):
        lines.append(table([(title, *_HEAD[1:]), *rows], right=range(1, len(_HEAD))))
    return "\n\n".join(lines)
