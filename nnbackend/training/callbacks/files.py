"""Callbacks that write files after every epoch."""

from __future__ import annotations

import logging
import os
import string
from collections.abc import Mapping, Sequence
from typing import Any

from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.network import Network
from nnbackend.saving.model_file import write_model
from nnbackend.support.checks import flag
from nnbackend.support.files import check_writable, path_text, write_csv
from nnbackend.training.callbacks.base import Callback, Metrics, warn_if_not_written
from nnbackend.training.callbacks.stopping import Best, Monitoring
from nnbackend.training.history import History

__all__ = ["CSVLogger", "ModelCheckpoint"]

_log = logging.getLogger("nnbackend")


class ModelCheckpoint(Monitoring):
    """Write the network to a file after every epoch, or whenever an epoch is the best so far.

    A file that cannot be written, for example because the disk is full, causes a RuntimeWarning, and the next epoch
    tries again.

    Parameters
    ----------
    path : str or path-like
        Formatted with `str.format`: the number of the epoch, from 1, and its metrics, as in
        ``"run/{epoch:02d}-{val_loss:.3f}.safetensors"``. Braces are written as ``{{`` and ``}}``. A missing folder is
        made.
    monitor : str
        The metric that decides which epoch is best.
    best_only : bool
    mode : "auto", "max" or "min"
        Whether the metric is better if it is higher. "auto" knows this of common names, such as "val_auc".

    Raises
    ------
    InvalidInputError
        A value is out of range; when training begins: there is no such metric to monitor or to put into the path.
    OSError
        When training begins: no file can be written there.
    """

    first_rank_only = True
    #: Path, description and weights of the last model that could not be written.
    _unwritten: tuple[str, dict[str, Any], dict[str, Any]] | None = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        best_only: bool = True,
        mode: str = "auto",
    ) -> None:
        self.path = path_text("path", path)
        self.best_only = flag("best_only", best_only)
        self._best = Best(monitor, mode=mode)

    def check(self, metrics: Sequence[str]) -> None:
        if self.best_only:
            self._best.check(metrics)
        check_writable(_formatted_sample(self.path, metrics))

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._best.reset()
        self._unwritten = None

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        if not self.best_only or self._best.improved(epoch, metrics):
            path = _formatted(self.path, {**metrics, "epoch": epoch})
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
        A missing folder is made.

    Raises
    ------
    InvalidInputError
        `path` is not a path.
    OSError
        When training begins: no file can be written there.
    """

    first_rank_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path_text("path", path)
        self._rows: list[dict[str, Any]] = []
        self._columns = 0

    def check(self, metrics: Sequence[str]) -> None:
        check_writable(self.path)

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self._rows = []

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        # Not a copy: callbacks that follow may add metrics.
        self._rows.append(metrics)
        self._write()
        return None

    def on_train_end(self, network: Network, history: History) -> None:
        if self._rows and len(self._rows[-1]) > self._columns:
            self._write()

    def _write(self) -> None:
        with warn_if_not_written():
            write_csv(self.path, self._rows)
            self._columns = len(self._rows[-1])

    def state(self, network: Network) -> dict[str, Any]:
        return {"rows": [dict(row) for row in self._rows]}

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        self._rows = [dict(row) for row in state["rows"]]


#: Metrics that every epoch has, besides those that can be monitored.
_ALWAYS = ("epoch", "learning_rate", "seconds", "samples_per_second")


def _formatted_sample(path: str, names: Sequence[str]) -> str:
    """The path of some epoch of a run with these metrics.

    Raises
    ------
    InvalidInputError
        It cannot be formatted: it names a metric that the run does not have, or a format that does not exist.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(path) if field is not None]
    except ValueError as error:
        raise InvalidInputError(
            f"the path {path!r} cannot be formatted: {error}; write a brace of the name itself as {{{{ or }}}}"
        ) from None
    for field in fields:
        if field not in (*names, *_ALWAYS) and not (getattr(names, "open", False) and field.isidentifier()):
            unknown = UnknownNameError("metric", field, (*names, *_ALWAYS))
            raise InvalidInputError(
                f"the path {path!r} has the placeholder {{{field}}}; {unknown} Write a brace of the name itself as {{{{"
            )
    return _formatted(path, {**dict.fromkeys(fields, 0.5), "epoch": 1})


def _formatted(path: str, metrics: Mapping[str, float]) -> str:
    """The path of an epoch with these metrics."""
    try:
        return path.format(**metrics)
    except KeyError as error:
        raise InvalidInputError(
            f"the path {path!r} has the placeholder {{{error.args[0]}}}; this epoch has {', '.join(metrics)}"
        ) from None
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise InvalidInputError(
            f"the path {path!r} cannot be formatted: {error}. Formats such as {{epoch:02d}} and {{loss:.3f}} are for a "
            "whole number and for a number with decimals"
        ) from None
