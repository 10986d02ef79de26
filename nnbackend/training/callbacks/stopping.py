"""Callbacks that monitor a metric: keep the best weights, or stop when there is no more improvement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnbackend.data.scale import warn
from nnbackend.network import Network
from nnbackend.step.model import Snapshot
from nnbackend.support.checks import flag, number, positive_integer, text
from nnbackend.support.monitor import check_monitor, mode_of, monitored_value, rises
from nnbackend.training.callbacks.base import Callback, Metrics
from nnbackend.training.history import History

__all__ = ["Best", "EarlyStopping", "KeepBest", "Monitoring"]

#: Prefix of the names of the best weights in a checkpoint.
_WEIGHTS = "weights."


class Best:
    """Monitors a metric and detects improvements; if `equals` is true, equal values also count."""

    # Of pickles from before there was a mode.
    mode = "auto"
    _warned = False

    def __init__(self, monitor: str, minimum_change: float = 0.0, equals: bool = False, mode: str = "auto") -> None:
        self.monitor = text("monitor", monitor)
        self.mode = mode_of(mode)
        self.minimum_change = number("minimum_change", minimum_change, low=0)
        self.equals = equals
        self.epoch = 0
        self.value = math.nan

    def reset(self) -> None:
        self.epoch, self.value, self._warned = 0, math.nan, False

    def state(self) -> dict[str, Any]:
        return {"best_epoch": self.epoch, "best_value": self.value if self.epoch else None}

    def set_state(self, state: Mapping[str, Any]) -> None:
        value = state["best_value"]
        self.epoch, self.value = int(state["best_epoch"]), math.nan if value is None else float(value)

    def check(self, metrics: Sequence[str]) -> None:
        check_monitor(self.monitor, metrics, self.mode)

    @property
    def in_training(self) -> bool:
        """Whether it is a metric of the training rows, which is useless after an incomplete epoch."""
        return not self.monitor.startswith("val_")

    def improved(self, epoch: int, metrics: Metrics) -> bool:
        value = monitored_value(self.monitor, metrics)
        change = value - self.value if rises(self.monitor, self.mode) else self.value - value
        # Any first value except NaN is an improvement.
        better = change > self.minimum_change or (self.equals and change == 0)
        if math.isnan(value) and not self._warned:
            self._warned = True
            warn(
                f"{self.monitor} is NaN after epoch {epoch}, and an epoch without a value is never the best. Scores "
                "such as roc_auc are NaN if all rows of the validation data have one class: validate on rows of every "
                "class, for example with fit(validation_split=0.2), or monitor another metric"
            )
        if math.isnan(value) or (self.epoch and not better):
            return False
        self.epoch, self.value = epoch, value
        return True


class Monitoring(Callback):
    """Base class of callbacks that monitor a metric."""

    _best: Best

    @property
    def monitor(self) -> str:
        """The metric that is monitored."""
        return self._best.monitor

    @property
    def mode(self) -> str:
        """Whether the metric is better if it is higher: "max", "min", or "auto"."""
        return self._best.mode

    @property
    def best_epoch(self) -> int:
        """The best epoch, from 1; 0 if there is none yet."""
        return self._best.epoch

    @property
    def best_value(self) -> float:
        """The metric of the best epoch."""
        return self._best.value


class KeepBest(Monitoring):
    """Restore the weights of the best epoch when training ends.

    Parameters
    ----------
    monitor : str
        "loss" or "accuracy" (means over the epoch, while the network changes), "val_loss" or "val_accuracy", or a
        metric that an earlier callback adds. The last of equal epochs is the best.
    mode : "auto", "max" or "min"
        Whether the metric is better if it is higher. "auto" knows this of common names, such as "val_auc".

    Notes
    -----
    After training, `best_epoch` is the number of the best epoch, from 1, and `best_value` is its metric.
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "auto") -> None:
        self._best = Best(monitor, equals=True, mode=mode)
        self._weights: Snapshot | None = None

    def check(self, metrics: Sequence[str]) -> None:
        self._best.check(metrics)

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._best.reset()
        self._weights = None

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        if self._best.improved(epoch, metrics):
            self._weights = network.snapshot(into=self._weights)
        return None

    def on_epoch_cut(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
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
    """End the training when a metric has stopped improving.

    Parameters
    ----------
    monitor : str
        "val_loss", "val_accuracy", "loss" or "accuracy", or a metric that an earlier callback adds.
    patience : int
        Training ends after this many epochs without improvement.
    restore_best : bool
        Whether to restore the weights of the best epoch when training ends, even after all epochs.
    minimum_change : float
        Smaller changes do not count as improvement.
    mode : "auto", "max" or "min"
        Whether the metric is better if it is higher. "auto" knows this of common names, such as "val_auc".

    Notes
    -----
    After training, `best_epoch` is the number of the best epoch, from 1, and `best_value` is its metric. The first of
    equally good epochs counts.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        restore_best: bool = True,
        minimum_change: float = 0.0,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.patience = positive_integer("patience", patience)
        self.restore_best = flag("restore_best", restore_best)
        self._best = Best(monitor, minimum_change, mode=mode)

    @property
    def minimum_change(self) -> float:
        """Smaller changes do not count as improvement."""
        return self._best.minimum_change

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        if self._best.improved(epoch, metrics):
            if self.restore_best:
                self._weights = network.snapshot(into=self._weights)
            return None
        if epoch - self._best.epoch < self.patience:
            return None
        return f"{self._best.monitor} has not improved since epoch {self._best.epoch}"
