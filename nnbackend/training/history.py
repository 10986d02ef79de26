"""The metrics of a training run by epoch, and tables of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.support.extras import install_command
from nnbackend.support.files import atomic_write, write_csv
from nnbackend.support.html import table

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["COLUMNS", "History", "cells", "column"]

#: Heading, width and format of each metric in a printed table; all of them fit into 80 columns.
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

#: Number of first and last epochs that a notebook shows for a longer history.
_ENDS = 8


class History:
    """The metrics of every epoch, and the loss of every step.

    Attributes
    ----------
    epochs : list of dict
        One entry per epoch: "epoch" (from 1), "loss", "accuracy" (where targets are classes), "val_loss",
        "val_accuracy" (where validation data were given), "val_loss_unweighted" (where the weights of the validation
        data make a difference), the metrics that `fit` was asked for, "learning_rate" (of the epoch's first step),
        "seconds" (of training), "samples_per_second", and "skipped" (the number of skipped steps, with
        ``on_nan="skip"``).
    step_losses : list of (steps,) float64 arrays
        The mean loss over each minibatch, before its update; one array per epoch.
    interrupted : bool
        Whether Ctrl-C ended the run; the last entry then covers part of its epoch.
    stopped_by : str
        The callback that ended the run early; empty if none did.
    error : Exception or None
        Why the network could not be trained to the end, among others in :func:`nnbackend.fit_many`.
    """

    # Of pickles from before there was one.
    error: Exception | None = None

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.step_losses: list[npt.NDArray[np.float64]] = []
        self.interrupted = False
        self.stopped_by = ""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            from nnbackend.support.other_names import missing_member

            raise missing_member(self, name)

    def append(self, metrics: Mapping[str, float], step_losses: npt.NDArray[np.float64]) -> None:
        """Add an epoch."""
        self.epochs.append(dict(metrics))
        self.step_losses.append(step_losses)

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, name: str) -> list[float]:
        """One metric over the epochs: ``history["val_loss"]``."""
        if not any(name in metrics for metrics in self.epochs):
            raise KeyError(f"no {name!r} in this history; it has {', '.join(self.names())}")
        return [metrics[name] for metrics in self.epochs if name in metrics]

    def names(self) -> list[str]:
        """The names of all metrics, in the order in which they first appeared."""
        return list(dict.fromkeys(name for metrics in self.epochs for name in metrics))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with one line per epoch."""
        write_csv(path, self.epochs)

    def to_pandas(self) -> DataFrame:
        """The metrics as a pandas table (extra ``pandas``): a row for each epoch, a column for each metric.

        Returns
        -------
        DataFrame
            Its index is "epoch", from 1.

        Raises
        ------
        ImportError
            Pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError(f"to_pandas needs the package pandas: {install_command('pandas')}") from error
        names = self.names() or ["epoch"]
        return DataFrame(self.epochs, columns=names).set_index("epoch")

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the metrics of the epochs, and how the run ended."""
        import json

        with atomic_write(path) as stream:
            stream.write(json.dumps(self.to_dict(), indent=1, allow_nan=False).encode() + b"\n")

    def to_dict(self) -> dict[str, Any]:
        """The epochs and how the run ended, as plain JSON."""
        # JSON has no NaN.
        epochs = [
            {name: value if math.isfinite(value) else None for name, value in metrics.items()}
            for metrics in self.epochs
        ]
        ending: dict[str, Any] = {"interrupted": self.interrupted, "stopped_by": self.stopped_by}
        # Only if there is one, because readers of older files know no such entry.
        return {"epochs": epochs, **ending, **({} if self.error is None else {"error": str(self.error)})}

    def _repr_html_(self) -> str:
        """The table that training prints, without its middle if it is long, and how the run ended."""
        count = len(self)
        there = self.names()
        names = [name for name in dict.fromkeys((*COLUMNS, *there)) if name in there]
        texts = [cells(metrics) for metrics in self.epochs]
        rows = [[text.get(name, "") for name in names] for text in texts]
        if count > 2 * _ENDS + 1:
            rows[_ENDS:-_ENDS] = [["..."] + [""] * (len(names) - 1)]
        return table(
            f"{count:,} epoch{'' if count == 1 else 's'}",
            [column(name)[0] for name in names],
            rows,
            "r" * len(names),
            note=self._ending(),
        )

    def _ending(self) -> str:
        if self.error is not None:
            return str(self.error)
        if self.interrupted:
            return "ended by Ctrl-C"
        return f"ended by {self.stopped_by}" if self.stopped_by else ""

    def __repr__(self) -> str:
        if not self.epochs:
            return "<History of 0 epochs>"
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].items() if name != "epoch")
        return f"<History of {len(self)} epochs, the last: {last}>"


def cells(metrics: Mapping[str, float]) -> dict[str, str]:
    """The metrics of an epoch as strings, in the order of the columns; those that callbacks added come last."""
    added = [name for name in metrics if name not in COLUMNS]
    return {name: column(name)[2].format(metrics[name]) for name in (*COLUMNS, *added) if name in metrics}


def column(name: str) -> tuple[str, int, str]:
    """Heading, width and format of a metric in a printed table."""
    return COLUMNS.get(name, (name, max(len(name), 7), "{:.4g}"))
