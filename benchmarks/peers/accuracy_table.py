"""The table of `accuracy`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.markdown import NOTHING, markdown

__all__ = ["body"]


def body(result: Mapping[str, Any]) -> list[str]:
    """The table, and what its columns mean."""
    rows: list[Sequence[str]] = [
        ("who", "reached by", "training", "epochs", "warm-up", "whole process", "accuracy then")
    ]
    for label, runs in result["contenders"].items():
        if runs:
            rows.append((label, *_cells(runs, result["target"])))
    note = (
        "784-200-80-10, ReLU, Adam, batches of 256, one cycle of the learning rate in "
        f"{result['epochs']} epochs with its peak at 0.006, the same weights at first; ended after the first epoch "
        f"with {100 * result['target']:g} % of the test images right. Medians of the seeds that reached it. Training: "
        "from the first order drawn to that test, tests included. Whole process: with the start of Python, imports, "
        "reading the images and compiling; caches are warm. `nnbackend train` trains to the end, ten epochs of its own "
        "recipe in batches of 128, or those of this one, and saves the model."
    )
    return [markdown(rows, right=[1, 2, 3, 4, 5, 6]), note]


def _cells(runs: Sequence[Mapping[str, Any]], target: float) -> tuple[str, ...]:
    reached = [run for run in runs if run["accuracy"] >= target]
    share = f"{len(reached)} of {len(runs)}"
    if not reached:
        best = max(run["accuracy"] for run in runs)
        return (share, NOTHING, NOTHING, NOTHING, NOTHING, f"{100 * best:.2f} %")

    def median(name: str) -> str:
        values = [run[name] for run in reached if run.get(name) is not None]
        return f"{statistics.median(values):.2f} s" if values else NOTHING

    epochs = [len(run["epochs"]) for run in reached if "epochs" in run]
    middle = f"{statistics.median(epochs):g}" if epochs else NOTHING
    accuracy = statistics.median(run["accuracy"] for run in reached)
    return (share, median("training"), middle, median("warm_up"), median("process"), f"{100 * accuracy:.2f} %")
