"""Results as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.markdown import NOTHING, markdown, ratio
from benchmarks.sklearn.contest import REFERENCE, TIMES

__all__ = ["text"]


def text(result: Mapping[str, Any]) -> str:
    """The complete text of a result."""
    machine, tasks = result["machine"], result["tasks"]
    names = [name for name in tasks[0]["contenders"] if name != REFERENCE]
    threads = f"{result['threads']} thread{'' if result['threads'] == 1 else 's'}"
    rounds = max(len(found["fit_seconds"]) for task in tasks for found in task["contenders"].values())
    lines = [
        f"### MLPClassifier and MLPRegressor beside scikit-learn's, {result['dtype']}, {threads}",
        "",
        f"{machine['cpu']} ({machine['architecture']}, {machine['cores']} cores), {machine['system']}",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        f"`{result['command']}`; {result['date']}, medians of {rounds} rounds",
    ]
    if result.get("quick"):
        lines.append("**With --quick: these results only show that it runs.**")
    training = ["data", "rows", "epochs", f"{REFERENCE}, ms", "its score"]
    predicting = ["data", f"{REFERENCE}, ms", "again, ms"]
    for name in names:
        training += [f"{name}, ms", "times as fast", "score"]
        predicting += [f"{name}, times as fast", "again"]
    remarks = [
        f"- {name}, {task['name']}: {found['error']}"
        for task in tasks
        for name, found in task["contenders"].items()
        if "error" in found
    ]
    return "\n\n".join(
        [
            "\n".join(lines),
            markdown([training, *(_training(task, names) for task in tasks)], right=range(1, len(training))),
            "Predicting a quarter of the rows: first after training, when nnbackend records the calls, and then again:",
            markdown([predicting, *(_predicting(task, names) for task in tasks)], right=range(1, len(predicting))),
            *(["\n".join(remarks)] if remarks else []),
        ]
    )


def _training(task: Mapping[str, Any], names: Sequence[str]) -> list[str]:
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
            cells += [NOTHING] * 3
            continue
        seconds, times = found["fit_seconds"], _times(reference, found, "fit_seconds")
        cells += [_milliseconds(seconds), ratio(times), f"{found['score']:.4f}"]
    return cells


def _predicting(task: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    reference = task["contenders"][REFERENCE]
    cells = [task["name"], *(_milliseconds(reference[what], 2) for what in TIMES[1:])]
    for name in names:
        found = task["contenders"][name]
        cells += [NOTHING if "error" in found else ratio(_times(reference, found, what)) for what in TIMES[1:]]
    return cells


def _times(reference: Mapping[str, Any], found: Mapping[str, Any], what: str) -> float:
    return statistics.median(reference[what]) / statistics.median(found[what])


def _milliseconds(seconds: Sequence[float], digits: int = 1) -> str:
    return f"{1e3 * statistics.median(seconds):,.{digits}f}"
