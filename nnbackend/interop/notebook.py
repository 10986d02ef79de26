"""Plot learning curves in a notebook during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.errors import InvalidInputError
from nnbackend.plotting import plot_curves
from nnbackend.support.checks import positive_integer
from nnbackend.support.extras import install_command
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import History

if TYPE_CHECKING:
    from nnbackend.network import Network

__all__ = ["LiveCurves"]


class LiveCurves(Callback):
    """Plot loss and accuracy below a notebook cell, and update the plot during training.

    Needs IPython and matplotlib (extra ``notebook``). The plot is that of :func:`nnbackend.plotting.plot_curves`.

    Parameters
    ----------
    every : int
        Number of epochs between updates; there is always one at the end of training. An update takes a few tenths of a
        second, so choose a larger number for short epochs.

    Raises
    ------
    ImportError
        IPython or matplotlib is not installed.
    InvalidInputError
        `every` is not an integer above 0; at the start of training: the program does not run in a notebook.
    """

    first_rank_only = True

    def __init__(self, every: int = 1) -> None:
        self.every = positive_integer("every", every)
        try:
            import IPython.display  # noqa: F401
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"LiveCurves needs the packages IPython and matplotlib: {install_command('notebook')}"
            ) from error
        self._handle: Any = None
        self._history = History()
        self._drawn = 0

    def check(self, metrics: Sequence[str]) -> None:
        if not _shows_pictures():
            raise InvalidInputError(
                "LiveCurves needs a notebook; elsewhere, call plotting.plot_curves(history) after training, or print "
                "the metrics with verbose=True"
            )

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._handle, self._history, self._drawn = None, History(), 0

    def on_epoch_end(self, network: Network, epoch: int, metrics: dict[str, float]) -> str | None:
        self._history.append(metrics, np.empty(0))
        if epoch % self.every == 0:
            self._draw()
        return None

    def on_train_end(self, network: Network, history: History) -> None:
        if self._drawn < len(self._history):
            self._draw()

    def state(self, network: Network) -> dict[str, Any]:
        return {"epochs": self._history.epochs}

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        for metrics in state["epochs"]:
            self._history.append(metrics, np.empty(0))

    def _draw(self) -> None:
        import IPython.display

        # IPython has no type annotations.
        display: Any = IPython.display.display
        figure = plot_curves(self._history)[0].figure
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
        self._drawn = len(self._history)


def _shows_pictures() -> bool:
    """Whether this runs in IPython with a front end that displays pictures."""
    from IPython import get_ipython
    from IPython.core.displaypub import DisplayPublisher

    shell = get_ipython()
    # A terminal uses the base class, which prints only text; front ends that show more have their own publisher.
    return shell is not None and type(shell.display_pub) is not DisplayPublisher
