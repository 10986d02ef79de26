"""Callbacks that write files after every epoch."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from nnbackend.network import Network
from nnbackend.support.files import write_csv
from nnbackend.training.callbacks.base import Callback, Metrics
from nnbackend.training.callbacks.stopping import Best

__all__ = ["CSVLogger", "ModelCheckpoint"]

_log = logging.getLogger("nnbackend")


class ModelCheckpoint(Callback):
    """Write the network to a file after every epoch, or whenever an epoch is the best so far.

    Parameters
    ----------
    path : str or path-like
        ``{epoch}`` in it is replaced by the number of the epoch.
    monitor : str
        The metric that decides which epoch is best.
    best_only : bool
    """

    first_rank_only = True

    def __init__(self, path: str | os.PathLike[str], monitor: str = "val_loss", best_only: bool = True) -> None:
        self.path = os.fspath(path)
        self.best_only = best_only
        self._best = Best(monitor)

    def check(self, metrics: Sequence[str]) -> None:
        if self.best_only:
            self._best.check(metrics)

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._best.reset()

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        if not self.best_only or self._best.improved(epoch, metrics):
            path = self.path.replace("{epoch}", str(epoch))
            network.save(path)
            _log.info("epoch %d: saved to %s", epoch, path)
        return None

    def on_epoch_cut(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        if self.best_only and self._best.in_training:
            return None
        return self.on_epoch_end(network, epoch, metrics)

    def state(self, network: Network) -> dict[str, Any]:
        return self._best.state()

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        self._best.set_state(state)


class CSVLogger(Callback):
    """Write the metrics of all epochs to a CSV file, which is complete after every epoch.

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

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        self._rows.append(dict(metrics))
        write_csv(self.path, self._rows)
        return None

    def state(self, network: Network) -> dict[str, Any]:
        return {"rows": self._rows}

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        self._rows = [dict(row) for row in state["rows"]]
