"""Callbacks: code of yours that runs while a network trains.

Derive from :class:`Callback` and override what you need. All are called on the host, between epochs; nothing is
called between steps, because steps run on without the host.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError
from nnbackend.step.model import Snapshot
from nnbackend.support.checks import number, positive_integer
from nnbackend.support.files import write_csv

if TYPE_CHECKING:
    from nnbackend.network import Network
    from nnbackend.training.history import History

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "KeepBest", "ModelCheckpoint"]

_log = logging.getLogger("nnbackend")

Figures = Mapping[str, float]

#: Before the names of the best weights in what a checkpoint keeps of a callback.
_WEIGHTS = "weights."


class Callback:
    """Base class: does nothing, at every occasion.

    Attributes
    ----------
    first_rank_only : bool
        Where several ranks train together: whether only the first is to call it, because it writes or shows something.
        All others are called on every rank, with the same metrics.
    """

    first_rank_only: ClassVar[bool] = False

    def check(self, metrics: Sequence[str]) -> None:
        """Before anything is changed: raise InvalidInputError if these metrics are not what is needed."""

    def on_train_begin(self, network: Network, epochs: int) -> None:
        """Training begins; `epochs` are planned."""

    def on_epoch_begin(self, network: Network, epoch: int) -> None:
        """Epoch `epoch` (from 1) begins."""

    def on_steps_end(self, network: Network, epoch: int, losses: npt.NDArray[np.float64]) -> None:
        """The steps of epoch `epoch` have ended; `losses`, (steps,), are the means over each minibatch before its
        update. Called before `on_epoch_end`, or before `on_epoch_cut`."""

    def on_epoch_end(self, network: Network, epoch: int, metrics: Figures) -> str | None:
        """Epoch `epoch` has ended with these metrics. Return a reason to end the training, or None to go on."""
        return None

    def on_epoch_cut(self, network: Network, epoch: int, metrics: Figures) -> str | None:
        """Ctrl-C has ended epoch `epoch` early: its metrics in training are of some rows only."""
        return self.on_epoch_end(network, epoch, metrics)

    def on_train_end(self, network: Network, history: History) -> None:
        """Training has ended, for whatever reason but an error."""

    def state(self, network: Network) -> dict[str, Any]:
        """What it remembers of the run, for a checkpoint: values of plain JSON, and NumPy arrays, by name."""
        return {}

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; called after `on_train_begin`, in a run that is resumed."""


class _Best:
    """Follows one figure and tells when it is better than ever before (or as good, if equals count)."""

    def __init__(self, monitor: str, minimum_change: float = 0.0, equals: bool = False) -> None:
        self.monitor = monitor
        self.minimum_change = number("minimum_change", minimum_change, low=0)
        self.equals = equals
        self.epoch = 0
        self.value = math.nan

    def reset(self) -> None:
        self.epoch, self.value = 0, math.nan

    def state(self) -> dict[str, Any]:
        return {"best_epoch": self.epoch, "best_value": self.value if self.epoch else None}

    def set_state(self, state: Mapping[str, Any]) -> None:
        value = state["best_value"]
        self.epoch, self.value = int(state["best_epoch"]), math.nan if value is None else float(value)

    def check(self, metrics: Sequence[str]) -> None:
        if self.monitor not in metrics:
            hint = "; give validation_data to fit" if self.monitor.startswith("val_") else ""
            raise InvalidInputError(f"cannot monitor {self.monitor!r}: there are {', '.join(metrics)}{hint}")

    @property
    def in_training(self) -> bool:
        """Whether it is a figure of the training rows, and so cannot be compared if an epoch saw some of them only."""
        return not self.monitor.startswith("val_")

    def improved(self, epoch: int, metrics: Figures) -> bool:
        value = metrics[self.monitor]
        rises = self.monitor.endswith("accuracy")
        change = value - self.value if rises else self.value - value
        # The first value is better than none, but NaN is never better than anything.
        better = change > self.minimum_change or (self.equals and change == 0)
        if math.isnan(value) or (self.epoch and not better):
            return False
        self.epoch, self.value = epoch, value
        return True


class KeepBest(Callback):
    """Give the network the weights of its best epoch when training ends.

    Parameters
    ----------
    monitor : str
        "loss" or "accuracy" for the best on the training data (means over the epoch, while the network changes), or
        "val_loss" or "val_accuracy". Of equal epochs the last is the best.

    Attributes
    ----------
    best_epoch : int
        From 1.
    best_value : float
    """

    def __init__(self, monitor: str = "val_loss") -> None:
        self._best = _Best(monitor, equals=True)
        self._weights: Snapshot | None = None

    @property
    def best_epoch(self) -> int:
        return self._best.epoch

    @property
    def best_value(self) -> float:
        return self._best.value

    def check(self, metrics: Sequence[str]) -> None:
        self._best.check(metrics)

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._best.reset()
        self._weights = None

    def on_epoch_end(self, network: Network, epoch: int, metrics: Figures) -> str | None:
        if self._best.improved(epoch, metrics):
            self._weights = network.snapshot(into=self._weights)
        return None

    def on_epoch_cut(self, network: Network, epoch: int, metrics: Figures) -> str | None:
        return None if self._best.in_training else self.on_epoch_end(network, epoch, metrics)

    def on_train_end(self, network: Network, history: History) -> None:
        if self._weights is not None:
            network.restore(self._weights)
            self._weights = None

    def state(self, network: Network) -> dict[str, Any]:
        state = self._best.state()
        if self._weights is not None:
            state |= {f"{_WEIGHTS}{name}": array for name, array in self._weights.values().items()}
        return state

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        layout, prefix = network.model.layout, len(_WEIGHTS)
        values = {name[prefix:]: value for name, value in state.items() if name.startswith(_WEIGHTS)}
        if values:
            packed = layout.pack(layout.check(values, network.dtype), network.dtype)
            self._weights = Snapshot.of_values(network.model, packed)
        self._best.set_state(state)


class EarlyStopping(KeepBest):
    """End the training when a figure has stopped improving.

    Parameters
    ----------
    monitor : str
        "val_loss", "val_accuracy", "loss" or "accuracy".
    patience : int
        Training ends after this many epochs without improvement.
    restore_best : bool
        Give the network the weights of its best epoch when training ends, also when all epochs were run.
    minimum_change : float
        A smaller change does not count as improvement.

    Attributes
    ----------
    best_epoch : int
        From 1; the first of equals.
    best_value : float
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        restore_best: bool = True,
        minimum_change: float = 0.0,
    ) -> None:
        super().__init__(monitor)
        self.patience = positive_integer("patience", patience)
        self.restore_best = restore_best
        self._best = _Best(monitor, minimum_change)

    def on_epoch_end(self, network: Network, epoch: int, metrics: Figures) -> str | None:
        if self._best.improved(epoch, metrics):
            if self.restore_best:
                self._weights = network.snapshot(into=self._weights)
            return None
        if epoch - self._best.epoch < self.patience:
            return None
        return f"{self._best.monitor} has not improved since epoch {self._best.epoch}"


class ModelCheckpoint(Callback):
    """Write the network to a file after every epoch, or after every epoch that is the best so far.

    Parameters
    ----------
    path : str or path-like
        ``{epoch}`` in it is replaced by the number of the epoch.
    monitor : str
        What decides which epoch is best.
    best_only : bool
    """

    first_rank_only = True

    def __init__(self, path: str | os.PathLike[str], monitor: str = "val_loss", best_only: bool = True) -> None:
        self.path = os.fspath(path)
        self.best_only = best_only
        self._best = _Best(monitor)

    def check(self, metrics: Sequence[str]) -> None:
        if self.best_only:
            self._best.check(metrics)

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._best.reset()

    def on_epoch_end(self, network: Network, epoch: int, metrics: Figures) -> str | None:
        if not self.best_only or self._best.improved(epoch, metrics):
            path = self.path.replace("{epoch}", str(epoch))
            network.save(path)
            _log.info("epoch %d: saved to %s", epoch, path)
        return None

    def on_epoch_cut(self, network: Network, epoch: int, metrics: Figures) -> str | None:
        if self.best_only and self._best.in_training:
            return None
        return self.on_epoch_end(network, epoch, metrics)

    def state(self, network: Network) -> dict[str, Any]:
        return self._best.state()

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        self._best.set_state(state)


class CSVLogger(Callback):
    """Keep a table of all epochs in a file, complete after every epoch.

    Parameters
    ----------
    path : str or path-like
    """

    first_rank_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._rows: list[dict[str, Any]] = []

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._rows = []

    def on_epoch_end(self, network: Network, epoch: int, metrics: Figures) -> str | None:
        self._rows.append(dict(metrics))
        write_csv(self.path, self._rows)
        return None

    def state(self, network: Network) -> dict[str, Any]:
        return {"rows": self._rows}

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        self._rows = [dict(row) for row in state["rows"]]
