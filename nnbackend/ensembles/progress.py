"""Progress output of many networks: a line for each that has ended, and a progress bar for all."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from nnbackend.support.surroundings import is_terminal, say
from nnbackend.training.history import History
from nnbackend.training.progress import duration, import_rich

__all__ = ["ManyProgress"]


class ManyProgress:
    """Prints the lines and, on a terminal, the bar; a context in which it is shown.

    Parameters
    ----------
    verbose : bool or None
        None: only if standard output is a terminal. True: lines in any case, the bar only on a terminal.
    histories : dict of History
        Of each network, by its place in the list; they grow while the networks train.
    work : sequence of int
        Roughly proportional to the time that each network takes for all its epochs.
    epochs : sequence of int
        The number of epochs of each.
    """

    def __init__(
        self, verbose: bool | None, histories: Mapping[int, History], work: Sequence[int], epochs: Sequence[int]
    ) -> None:
        terminal = verbose is not False and is_terminal()
        self._lines = terminal if verbose is None else verbose
        self._histories, self._work, self._epochs = histories, work, epochs
        self._ended: set[int] = set()
        self._live: Any = None
        self._console: Any = None
        self._shows_bar = self._lines and terminal
        self._began = time.monotonic()

    def __enter__(self) -> ManyProgress:
        self._began = time.monotonic()
        if self._shows_bar:
            import_rich()
            from rich import get_console
            from rich.errors import LiveError
            from rich.live import Live

            self._console = get_console()
            live = Live(self, console=self._console, refresh_per_second=4, transient=True)
            # Fails if the terminal shows the bar of another training, or is gone.
            with suppress(LiveError, OSError, ValueError):
                live.start()
                self._live = live
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with suppress(OSError, ValueError):
                self._live.stop()

    def ended(self, place: int) -> None:
        """A network has ended."""
        self._ended.add(place)
        if not self._lines:
            return
        line = f"network {place}: {outcome(self._histories[place])}"
        if self._live is None:
            self._lines = say(line)
            return
        try:
            self._console.print(line, highlight=False, markup=False)
        except (OSError, ValueError):
            self._lines = False

    def status(self) -> str:
        """How many networks have ended, the best result, and the time that is left."""
        parts = [f"{len(self._ended)}/{len(self._histories)} networks"]
        best = best_of(self._histories)
        if best is not None:
            place, name, value = best
            parts.append(f"best {name} {value:.4g} (network {place})")
        if (fraction := self.fraction()) > 0:
            parts.append(f"{duration((time.monotonic() - self._began) * (1 - fraction) / fraction)} left")
        return ", ".join(parts)

    def fraction(self) -> float:
        """The part of the work that is done."""
        done = sum(
            work * (1.0 if place in self._ended else len(history) / epochs)
            for (place, history), work, epochs in zip(self._histories.items(), self._work, self._epochs, strict=True)
        )
        return done / max(sum(self._work), 1)

    def __rich__(self) -> Any:
        """The bar as it is now, whenever Rich draws it."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(ProgressBar(1.0, self.fraction(), width=20), self.status())
        return line


def outcome(history: History) -> str:
    """The last metrics of a network and how its training ended, as text."""
    if history.error is not None:
        return f"{type(history.error).__name__}: {history.error}"
    parts = [f"{len(history)} epoch{'' if len(history) == 1 else 's'}"]
    if history.epochs:
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        parts += [f"{name} {history.epochs[-1][name]:.4f}" for name in names if name in history.epochs[-1]]
    if history.interrupted:
        parts.append("interrupted")
    elif history.stopped_by:
        parts.append(f"stopped by {history.stopped_by}")
    return ", ".join(parts)


def best_of(histories: Mapping[int, History]) -> tuple[int, str, float] | None:
    """The network with the lowest validation loss in any epoch, or training loss if there is no other.

    Returns
    -------
    (place, name of the metric, value), or None before the first epoch has ended
    """
    validated = any("val_loss" in metrics for history in histories.values() for metrics in history.epochs)
    name = "val_loss" if validated else "loss"
    values = [
        (min((metrics.get(name, math.inf) for metrics in list(history.epochs)), default=math.inf), place)
        for place, history in histories.items()
    ]
    value, place = min(values, default=(math.inf, 0))
    return (place, name, value) if math.isfinite(value) else None
