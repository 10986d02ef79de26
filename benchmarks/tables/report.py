"""The results as tables and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.markdown import markdown as table
from benchmarks.tables.contenders import BASE, CONTENDERS, REALMLP
from nnbackend.cli.text import aligned

__all__ = ["ADDED", "draw", "markdown", "mean_ratio", "seconds", "summary", "text"]

#: To both errors of a ratio, so that tables with hardly any errors do not decide.
ADDED = 0.01

_RESAMPLED = 2000

_HEAD = ("", "tables", "error ratio", "95 % interval", "smaller error", "than boosting")

#: Every contender is compared to it, too.
_BOOSTING = "HistGradientBoosting"

#: What no choice among the contenders can improve on.
_BEST = "the best on each table"

_HALF = "tables on which no default was chosen"


def summary(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Groups of rows: classification and regression, all tables and those on which nothing was chosen."""
    groups = []
    for kind, regression in (("classification", False), ("regression", True)):
        for which, all_tables in (("all tables", True), (_HALF, False)):
            errors = _errors(results, regression, all_tables)
            rows = [
                _row(name, errors) for name in CONTENDERS if errors.get(name, {}).keys() & errors.get(BASE, {}).keys()
            ]
            if best := _best(errors):
                rows.append(_row(_BEST, {**errors, _BEST: best}))
            if rows:
                groups.append((f"{kind}, {which}", rows))
    return groups


def _best(errors: Mapping[str, Mapping[str, Mapping[int, float]]]) -> dict[str, Mapping[int, float]]:
    """On each table the errors of the contender whose mean is the smallest, over the splits that it shares with the
    base."""
    best = {}
    for name, theirs in errors.get(BASE, {}).items():
        known = [own[name] for own in errors.values() if own.get(name, {}).keys() >= theirs.keys()]
        if len(known) > 1:
            best[name] = min(known, key=lambda own: float(np.mean([own[split] for split in theirs])))
    return best


def _errors(
    results: Sequence[Mapping[str, Any]], regression: bool, all_tables: bool
) -> dict[str, dict[str, dict[int, float]]]:
    """By contender, table and split."""
    errors: dict[str, dict[str, dict[int, float]]] = {}
    for each in results:
        if (each["kind"] == "regression") == regression and (all_tables or not each["tuned_on"]):
            errors.setdefault(each["contender"], {}).setdefault(each["table"], {})[each["split"]] = each["error"]
    return errors


def _pairs(own: Mapping[str, Mapping[int, float]], theirs: Mapping[str, Mapping[int, float]]) -> np.ndarray:
    """The mean errors of two contenders, (tables, 2), over the splits that both have."""
    means = []
    for name in sorted(own.keys() & theirs.keys()):
        shared = own[name].keys() & theirs[name].keys()
        if shared:
            means.append([np.mean([each[name][split] for split in shared]) for each in (own, theirs)])
    return np.array(means).reshape(-1, 2)


def _ratio(pairs: np.ndarray) -> tuple[float, float, float]:
    """The geometric mean of the ratios, and its interval over resampled tables."""
    return mean_ratio(np.log((pairs[:, 0] + ADDED) / (pairs[:, 1] + ADDED)))


def mean_ratio(logarithms: np.ndarray) -> tuple[float, float, float]:
    """The geometric mean of ratios, (tables,), from their logarithms, and its 95 % interval over resampled tables."""
    picks = np.random.default_rng(0).integers(0, len(logarithms), (_RESAMPLED, len(logarithms)))
    low, high = np.exp(np.quantile(logarithms[picks].mean(axis=1), [0.025, 0.975]))
    return float(np.exp(logarithms.mean())), float(low), float(high)


def _wins(pairs: np.ndarray) -> str:
    wins, losses = int((pairs[:, 0] < pairs[:, 1]).sum()), int((pairs[:, 0] > pairs[:, 1]).sum())
    return f"{wins} of {len(pairs)}, larger on {losses}"


def _row(name: str, errors: Mapping[str, Mapping[str, Mapping[int, float]]]) -> tuple[str, ...]:
    pairs = _pairs(errors[name], errors[BASE])
    mean, low, high = _ratio(pairs)
    boosting = _pairs(errors[name], errors.get(_BOOSTING, {}))
    counted = _wins(boosting) if len(boosting) and name not in (_BOOSTING, _BEST) else ""
    if name == BASE:
        return (name, str(len(pairs)), f"{mean:.3f}", "", "", counted)
    wins = "" if name == _BEST else _wins(pairs)
    return (name, str(len(pairs)), f"{mean:.3f}", f"{low:.3f} to {high:.3f}", wins, counted)


def text(results: Sequence[Mapping[str, Any]]) -> str:
    """As text in columns."""
    lines = []
    for title, rows in summary(results):
        lines += [title, aligned([_HEAD, *rows]), ""]
    return "\n".join(lines).rstrip()


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """As tables in Markdown."""
    lines = []
    for title, rows in summary(results):
        lines.append(table([(title, *_HEAD[1:]), *rows], right=range(1, len(_HEAD))))
    return "\n\n".join(lines)


def seconds(results: Sequence[Mapping[str, Any]]) -> str:
    """Median seconds of a fit on each table, and the median of the ratios to pytabkit's where it was measured."""
    times: dict[str, dict[str, dict[int, float]]] = {}
    for each in results:
        times.setdefault(each["table"], {}).setdefault(each["contender"], {})[each["split"]] = each["seconds"]
    names = [name for name in CONTENDERS if any(name in own for own in times.values())]
    rows: list[Sequence[str]] = [("", *times)]
    for name in names:
        cells = []
        for own in times.values():
            mine, theirs = own.get(name, {}), own.get(REALMLP, {})
            ratios = [mine[split] / theirs[split] for split in mine.keys() & theirs.keys()]
            ratio = f" ({np.median(ratios):.2f} x)" if ratios and name != REALMLP else ""
            cells.append(f"{np.median(list(mine.values())):.2f} s{ratio}" if mine else "")
        rows.append((name, *cells))
    return aligned(rows)


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The ratios with their intervals, on the tables on which nothing was chosen, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (title, regression) in zip(axes, (("classification", False), ("regression", True)), strict=True):
        errors = _errors(results, regression, False)
        names = [
            name for name in CONTENDERS if name != BASE and len(_pairs(errors.get(name, {}), errors.get(BASE, {})))
        ]
        for place, name in enumerate(reversed(names)):
            mean, low, high = _ratio(_pairs(errors[name], errors[BASE]))
            color = "tab:blue" if name in ("one network", "8 members") else "tab:gray"
            axis.plot([low, high], [place, place], color=color, linewidth=2)
            axis.plot([mean], [place], "o", color=color)
            label = axis.annotate(
                f"{mean:.2f}", (mean, place), (0, 6), textcoords="offset points", ha="center", fontsize=9
            )
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_yticks(range(len(names)), list(reversed(names)))
        axis.set_ylim(-0.6, len(names) - 0.2)
        axis.set_title(f"{title}, {len(errors.get(BASE, {}))} tables")
        axis.set_xlabel(f"error, relative to {BASE}")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    with path.open("wb") as stream:
        figure.savefig(stream, format="png", dpi=120)
