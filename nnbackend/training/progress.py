"""Progress output: a table with a line for each epoch, and a progress bar within the epoch."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from nnbackend.training.history import cells, column
from nnbackend.training.listeners import Listener
from nnbackend.training.run import EpochResult

__all__ = ["Progress"]


class Progress(Listener):
    """Prints the table and, on a terminal, the bar.

    Parameters
    ----------
    verbose : bool or None
        None: only if standard output is a terminal. True: the table in any case; the bar only on a terminal.
    epochs, steps : int
        Number of epochs, and of steps in each.
    """

    def __init__(self, verbose: bool | None, epochs: int, steps: int) -> None:
        terminal = verbose is not False and sys.stdout.isatty()
        self._table = terminal if verbose is None else verbose
        self._epochs = epochs
        self._headed = False
        self._bar: Any = None
        self._task: Any = None
        if self._table and terminal:
            self._bar, self._task = _make_bar(steps)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def epoch_begin(self, epoch: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=0, description=f"epoch {epoch}/{self._epochs}")

    def advanced(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def epoch_end(self, epoch: int, result: EpochResult, metrics: dict[str, float]) -> None:
        if not self._table:
            return
        texts = cells(metrics)
        if not self._headed:
            self._print("  ".join(f"{column(name)[0]:>{column(name)[1]}}" for name in texts))
            self._headed = True
        self._print("  ".join(f"{text:>{column(name)[1]}}" for name, text in texts.items()))

    def note(self, text: str) -> None:
        """Print a line below the table."""
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
