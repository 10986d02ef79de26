"""Callbacks that write files after every epoch."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from nnbackend.network import Network
from nnbackend.saving.model_file import write_model
from nnbackend.support.files import check_writable, write_csv
from nnbackend.training.callbacks.base import Callback, Metrics, warn_if_not_written
from nnbackend.training.callbacks.stopping import Best
from nnbackend.training.history import History

__all__ = ["CSVLogger", "ModelCheckpoint"]

_log = logging.getLogger("nnbackend")


class ModelCheckpoint(Callback):
    """Write the network to a file after every epoch, or whenever an epoch is the best so far.

    A file that cannot be written, for example because the disk is full, causes a RuntimeWarning, and the next epoch
    tries again.

    Parameters
    ----------
    path : str or path-like
        ``{epoch}`` in it is replaced by the number of the epoch.
    monitor : str
        The metric that decides which epoch is best.
    best_only : bool

    Raises
    ------
    OSError
        When training begins: its folder cannot be written to.
    """

    first_rank_only = True
    #: Path, description and weights of the last model that could not be written.
    _unwritten: tuple[str, dict[str, Any], dict[str, Any]] | None = None

    def __init__(self, path: str | os.PathLike[str], monitor: str = "val_loss", best_only: bool = True) -> None:
        self.path = os.fspath(path)
        self.best_only = best_only
        self._best = Best(monitor)

    def check(self, metrics: Sequence[str]) -> None:
        if self.best_only:
            self._best.check(metrics)
        check_writable(self.path)

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._best.reset()
        self._unwritten = None

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        if not self.best_only or self._best.improved(epoch, metrics):
            path = self.path.replace("{epoch}", str(epoch))
            self._unwritten = path, network.config(), network.get_weights()
        self._write()
        return None

    def _write(self) -> None:
        if self._unwritten is not None:
            with warn_if_not_written():
                write_model(*self._unwritten)
                _log.info("saved to %s", self._unwritten[0])
                self._unwritten = None

    def on_epoch_cut(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        if self.best_only and self._best.in_training:
            return None
        return self.on_epoch_end(network, epoch, metrics)

    def on_train_end(self, network: Network, history: History) -> None:
        self._write()

    def state(self, network: Network) -> dict[str, Any]:
        return self._best.state()

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        self._best.set_state(state)


class CSVLogger(Callback):
    """Write the metrics of all epochs to a CSV file, which is complete after every epoch.

    If it cannot be written, for example because the disk is full, that causes a RuntimeWarning, and the next epoch
    writes all rows.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    OSError
        When training begins: its folder cannot be written to.
    """

    first_rank_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._rows: list[dict[str, Any]] = []

    def check(self, metrics: Sequence[str]) -> None:
        check_writable(self.path)

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._rows = []

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        self._rows.append(dict(metrics))
        with warn_if_not_written():
            write_csv(self.path, self._rows)
        return None

    def state(self, network: Network) -> dict[str, Any]:
        return {"rows": self._rows}

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        self._rows = [dict(row) for row in state["rows"]]
