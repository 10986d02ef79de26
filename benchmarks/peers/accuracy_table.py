"""The table of `accuracy`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.learners.base import RECIPES
from benchmarks.peers.markdown import NOTHING, markdown

__all__ = ["body"]


def body(result: Mapping[str, Any]) -> list[str]:
    """The table and an explanation of its columns."""
    rows: list[Sequence[str]] = [
        ("contender", "reached by", "training", "epochs", "warm-up", "whole process", "accuracy")
    ]
    for label, runs in result["contenders"].items():
        if runs:
            rows.append((label, *_cells(runs, result["target"])))
    recipes = "; ".join(
        f"{name}: {recipe.work.name} in batches of {recipe.work.batch_size}, {recipe.epochs} epochs, peak "
        f"{recipe.work.learning_rate:g}"
        for name, recipe in RECIPES.items()
    )
    note = (
        f"Adam with one cycle of the learning rate ({recipes}), ReLU, the same initial weights; stopped after the "
        f"first epoch with a test accuracy of {100 * result['target']:g} %. Medians of the seeds that reached it. "
        "Training: from drawing the first order to that test, with all tests. Whole process: with the start of Python, "
        "imports, reading the images and loading compiled code from warm caches. `nnbackend train` trains its default "
        "recipe, a 784-200-80-10 with Adam for ten epochs, or five epochs like small batches, and saves the model."
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
