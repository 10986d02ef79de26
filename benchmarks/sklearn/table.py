"""Results as text, in Markdown that can be read as it is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.markdown import NOTHING, markdown, ratio
from benchmarks.sklearn.contest import REFERENCE

__all__ = ["text"]


def text(result: Mapping[str, Any]) -> str:
    """Everything that is to be said of a result."""
    machine, tasks = result["machine"], result["tasks"]
    names = [name for name in tasks[0]["contenders"] if name != REFERENCE]
    threads = f"{result['threads']} thread{'' if result['threads'] == 1 else 's'}"
    rounds = max(len(found["fit_seconds"]) for task in tasks for found in task["contenders"].values())
    lines = [
        f"## MLPClassifier and MLPRegressor beside scikit-learn's, {result['dtype']}, {threads}",
        "",
        f"{machine['cpu']} ({machine['architecture']}, {machine['cores']} cores), {machine['system']}",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        f"`{result['command']}`; {result['date']}, medians of {rounds} rounds",
    ]
    if result.get("quick"):
        lines.append("**With --quick: these figures say that it runs, and nothing about speed.**")
    head = ["data", "rows", "epochs", f"{REFERENCE}, ms", "its score"]
    for name in names:
        head += [f"{name}, ms", "times as fast", "score", "predicting"]
    table = markdown([head, *(_row(task, names) for task in tasks)], right=range(1, len(head)))
    remarks = [
        f"- {name}, {task['name']}: {found['error']}"
        for task in tasks
        for name, found in task["contenders"].items()
        if "error" in found
    ]
    closing = '"predicting" is how many times as fast a quarter of the rows is predicted.'
    return "\n\n".join(["\n".join(lines), table, closing, *(["\n".join(remarks)] if remarks else [])])


def _row(task: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    reference = task["contenders"][REFERENCE]
    cells = [
        task["name"],
        f"{task['rows']:,} x {task['features']}",
        str(reference["epochs"]),
        _milliseconds(reference["fit_seconds"]),
        f"{reference['score']:.4f}",
    ]
    for name in names:
        found = task["contenders"][name]
        if "error" in found:
            cells += [NOTHING] * 4
            continue
        cells += [
            _milliseconds(found["fit_seconds"]),
            ratio(_times(reference, found, "fit_seconds")),
            f"{found['score']:.4f}",
            ratio(_times(reference, found, "predict_seconds")),
        ]
    return cells


def _times(reference: Mapping[str, Any], found: Mapping[str, Any], what: str) -> float:
    return statistics.median(reference[what]) / statistics.median(found[what])


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.median(seconds):,.1f}"
