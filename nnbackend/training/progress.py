"""What a person sees while a network trains: a table that grows by a line an epoch, and a bar within the epoch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["COLUMNS", "Progress", "cells"]

#: Heading, width and format of each figure of the history; all of them fit into 80 columns.
COLUMNS = {
    "epoch": ("epoch", 5, "{:.0f}"),
    "loss": ("loss", 7, "{:.4f}"),
    "accuracy": ("accuracy", 8, "{:.4f}"),
    "binary_accuracy": ("binary_acc", 10, "{:.4f}"),
    "val_loss": ("val_loss", 8, "{:.4f}"),
    "val_accuracy": ("val_accuracy", 12, "{:.4f}"),
    "val_binary_accuracy": ("val_binary", 10, "{:.4f}"),
    "skipped": ("skipped", 7, "{:.0f}"),
    "learning_rate": ("rate", 8, "{:.3g}"),
    "seconds": ("seconds", 7, "{:.2f}"),
    "samples_per_second": ("samples/s", 9, "{:,.0f}"),
}


def cells(metrics: Mapping[str, float]) -> dict[str, str]:
    """The metrics of an epoch as texts, in the order of the columns."""
    return {name: COLUMNS[name][2].format(metrics[name]) for name in COLUMNS if name in metrics}


class Progress:
    """Prints the table, and on a terminal the bar.

    Parameters
    ----------
    verbose : bool or None
        None: only if standard output is a terminal. True: the table in any case; the bar only on a terminal.
    epochs, steps : int
        How many epochs, and steps in each.
    """

    def __init__(self, verbose: bool | None, epochs: int, steps: int) -> None:
        terminal = sys.stdout.isatty()
        self._table = terminal if verbose is None else verbose
        self._epochs = epochs
        self._steps = steps
        self._headed = False
        self._bar: Any = None
        self._task: Any = None
        if self._table and terminal:
            self._bar, self._task = _make_bar(steps)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, epoch: int) -> None:
        """Epoch `epoch` begins."""
        if self._bar is not None:
            self._bar.update(self._task, completed=0, description=f"epoch {epoch}/{self._epochs}")

    def advance(self, steps: int) -> None:
        """`steps` steps of the epoch are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=steps)

    def end(self, metrics: Mapping[str, float]) -> None:
        """An epoch has ended with these metrics."""
        if not self._table:
            return
        texts = cells(metrics)
        if not self._headed:
            self._print("  ".join(f"{COLUMNS[name][0]:>{COLUMNS[name][1]}}" for name in texts))
            self._headed = True
        self._print("  ".join(f"{text:>{COLUMNS[name][1]}}" for name, text in texts.items()))

    def note(self, text: str) -> None:
        """A line below the table."""
        if self._table:
            self._print(text)

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, flush=True)


def _make_bar(steps: int) -> tuple[Any, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
        transient=True,
    )
    return bar, bar.add_task("", total=steps)
