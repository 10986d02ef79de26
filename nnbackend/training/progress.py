"""Progress output: a table with a line for each epoch, and a progress bar within the epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from nnbackend.support.fork_lock import ForkLock
from nnbackend.support.surroundings import is_terminal, say
from nnbackend.training.history import cells, column
from nnbackend.training.listeners import Listener
from nnbackend.training.run import EpochResult

__all__ = ["Progress", "RemainingTime", "bar_parts", "duration", "fitting_columns", "import_rich"]

#: The columns that remain longest where a terminal is narrow; the others follow in their order in the table.
_FIRST_CHOICE = (
    "epoch", "loss", "val_loss", "val_accuracy", "val_binary_accuracy", "accuracy", "binary_accuracy", "skipped",
    "seconds",
)  # fmt: skip

#: Characters between two columns.
_GAP = 2

#: Length of the bar: as long as there is room, within these limits.
_SHORTEST_BAR, _LONGEST_BAR = 8, 40


class Progress(Listener):
    """Prints the table and, on a terminal, the bar.

    Nothing is printed where standard output is missing or closed, and a stream that fails ends the output, but not the
    training.

    Parameters
    ----------
    verbose : bool or None
        None: only if standard output is a terminal. True: the table in any case; the bar only on a terminal.
    epochs, steps : int
        Number of epochs, and of steps in each.
    """

    def __init__(self, verbose: bool | None, epochs: int, steps: int) -> None:
        terminal = verbose is not False and is_terminal()
        self._table = terminal if verbose is None else verbose
        #: The columns of the last line.
        self._columns: list[str] = []
        self._bar = _Bar(epochs, steps) if self._table and terminal else None

    def __enter__(self) -> Progress:
        if self._bar is not None and not self._bar.start():
            self._bar = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def epoch_begin(self, epoch: int) -> None:
        if self._bar is not None:
            self._bar.time.epoch_begin(epoch)

    def allow(self, done: int, steps: int) -> int:
        if self._bar is not None:
            self._bar.time.steps_begin(done)
        return steps

    def advanced(self, done: int) -> None:
        if self._bar is not None:
            self._bar.time.advanced(done)

    def epoch_end(self, epoch: int, result: EpochResult, metrics: dict[str, float]) -> None:
        if not self._table:
            return
        texts = cells(metrics)
        columns = list(texts)
        if self._bar is not None:
            texts = {name: _short(name, text, metrics[name]) for name, text in texts.items()}
            columns = fitting_columns(columns, self._bar.width)
        if columns != self._columns:
            self._print((" " * _GAP).join(f"{column(name)[0]:>{column(name)[1]}}" for name in columns))
            self._columns = columns
        self._print((" " * _GAP).join(f"{texts[name]:>{column(name)[1]}}" for name in columns))

    def note(self, text: str) -> None:
        """Print a line below the table."""
        self._print(text)

    def _print(self, line: str) -> None:
        if not self._table:
            return
        # A stream that has failed once is not tried again.
        self._table = self._bar.print(line) if self._bar is not None else say(line)


def fitting_columns(names: list[str], width: int) -> list[str]:
    """The most important of these columns whose lines fit into `width` characters, in the order of the table."""
    others = [name for name in names if name not in _FIRST_CHOICE]
    kept: list[str] = []
    for name in [*(name for name in _FIRST_CHOICE if name in names), *others]:
        width -= column(name)[1] + (_GAP if kept else 0)
        if width < 0:
            break
        kept.append(name)
    return [name for name in names if name in kept]


def _short(name: str, text: str, value: float) -> str:
    """The cell's text, or the number in scientific notation if that text is wider than the column."""
    return text if name == "epoch" or len(text) <= column(name)[1] else f"{value:.1e}"


class RemainingTime:
    """How long an epoch and the whole run will still take.

    A step is assumed to take as long as those of this epoch and the previous one on average; earlier ones may have
    waited for a compiler. The rest of an epoch, such as validation and checkpoints, is assumed to take as long as it
    did last.

    Parameters
    ----------
    epochs, steps : int
        Number of epochs, and of steps in each.
    clock : callable
        The time in seconds.

    Attributes
    ----------
    epoch, done : int
        The current epoch, from 1, and the number of its steps that have run.
    """

    def __init__(self, epochs: int, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.epochs, self.steps = epochs, steps
        self.epoch = self.done = 0
        self._clock = clock
        #: Steps and seconds of the previous epoch; seconds between the steps of two epochs.
        self._previous = (0, 0.0)
        self._rest = 0.0
        self._first: int | None = None
        self._began = self._last = clock()

    def epoch_begin(self, epoch: int) -> None:
        """The epoch begins."""
        if self._first is not None:
            self._previous = self.done - self._first, self._last - self._began
        self.epoch, self.done, self._first = epoch, 0, None

    def steps_begin(self, done: int) -> None:
        """The next steps begin, after `done` steps of the epoch, which another process may have run."""
        if self._first is None:
            now = self._clock()
            if self._previous[0]:
                self._rest = now - self._last
            self._began = self._last = now
            self._first = self.done = done

    def advanced(self, done: int) -> None:
        """`done` steps of the epoch have run."""
        self.done, self._last = done, self._clock()

    def left(self) -> tuple[float, float] | None:
        """The seconds that are left of the epoch's steps, and of the run; None before the first step."""
        steps, seconds = self._previous
        if self._first is not None:
            steps, seconds = steps + self.done - self._first, seconds + self._last - self._began
        if steps == 0:
            return None
        step = seconds / steps
        here = (self.steps - self.done) * step
        others = self.epochs - self.epoch
        return here, here + others * (self.steps * step + self._rest)


def bar_parts(time_left: RemainingTime, width: int) -> tuple[str, int, str]:
    """The line of the bar: the text before it, its length (0 if there is no room), and the text after it."""
    if time_left.epoch == 0:
        return "", 0, ""  # the first epoch has not begun
    head = f"epoch {time_left.epoch}/{time_left.epochs}"
    count = f"{time_left.done}/{time_left.steps} steps"
    seconds = time_left.left()
    # The most complete text first. The bar shows what the others leave out.
    if seconds is None:
        choices = [count]
    elif time_left.epoch == time_left.epochs:
        choices = [f"{count}, {duration(seconds[1])} left", f"{duration(seconds[1])} left"]
    else:
        here, run = map(duration, seconds)
        choices = [f"{count}, {here} left, run {run} left", f"{count}, run {run} left", f"run {run} left"]
    for tail in choices:
        room = width - len(head) - len(tail) - 2 * _GAP
        if room >= _SHORTEST_BAR:
            return head, min(room, _LONGEST_BAR), tail
    return head, 0, tail if len(head) + _GAP + len(tail) <= width else ""


def duration(seconds: float) -> str:
    """A time in hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Bar:
    """The bar below the table, which another thread draws.

    Parameters
    ----------
    epochs, steps : int

    Attributes
    ----------
    time : RemainingTime
    """

    def __init__(self, epochs: int, steps: int) -> None:
        import_rich()
        from rich import get_console
        from rich.live import Live

        self.time = RemainingTime(epochs, steps)
        self._console = get_console()
        self._live = Live(self, console=self._console, refresh_per_second=10, transient=True)

    @property
    def width(self) -> int:
        """Characters in a line of the terminal, without the last one, after which some terminals wrap."""
        return self._console.width - 1

    def start(self) -> bool:
        """Whether the bar is shown; not if the terminal shows another one, of another thread or of the program."""
        from rich.errors import LiveError

        try:
            self._live.start()
        except (LiveError, OSError, ValueError):
            return False
        return True

    def stop(self) -> None:
        """Remove the bar."""
        # Fails if the terminal is gone.
        with suppress(OSError, ValueError):
            self._live.stop()

    def print(self, line: str) -> bool:
        """Print a line above the bar; returns whether that worked."""
        try:
            self._console.print(line, highlight=False, markup=False)
        except (OSError, ValueError):
            return False
        return True

    def __rich__(self) -> Any:
        """The line as it is now, whenever Rich draws it."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        head, length, tail = bar_parts(self.time, self.width)
        line = Table.grid(padding=(0, _GAP, 0, 0))
        bar = [ProgressBar(self.time.steps, self.time.done, width=length)] if length else []
        line.add_row(head, *bar, tail)
        return line


def import_rich() -> None:
    """Import what draws the bar, without a change to the generator of random numbers, which the program may have
    seeded: Rich draws from it once, when it is imported."""
    import random

    with _IMPORTING:
        state = random.getstate()
        import rich.live
        import rich.progress_bar
        import rich.table  # noqa: F401

        random.setstate(state)


_IMPORTING = ForkLock()
