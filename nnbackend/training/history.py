"""What a training run showed, epoch by epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnbackend.support.files import atomic_write, write_csv

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["History"]


class History:
    """The metrics of every epoch, and the loss of every step.

    Attributes
    ----------
    epochs : list of dict
        One entry an epoch: "epoch" (from 1), "loss", "accuracy" (where targets are classes), "val_loss",
        "val_accuracy" (where validation data were given), "learning_rate" (of the epoch's first step), "seconds" (of
        training), "samples_per_second", and "skipped" (steps that were left out, with ``on_nan="skip"``).
    step_losses : list of (steps,) float64 arrays
        The mean loss over each minibatch, before its update; one array an epoch.
    interrupted : bool
        Whether Ctrl-C ended the run; the last entry then covers a part of its epoch.
    stopped_by : str
        The callback that ended the run early; empty if none did.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.step_losses: list[npt.NDArray[np.float64]] = []
        self.interrupted = False
        self.stopped_by = ""

    def append(self, metrics: Mapping[str, float], step_losses: npt.NDArray[np.float64]) -> None:
        """Add an epoch."""
        self.epochs.append(dict(metrics))
        self.step_losses.append(step_losses)

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, name: str) -> list[float]:
        """one metric over the epochs: ``history["val_loss"]``."""
        if not any(name in metrics for metrics in self.epochs):
            raise KeyError(f"no {name!r} in this history; there are {', '.join(self.names())}")
        return [metrics[name] for metrics in self.epochs if name in metrics]

    def names(self) -> list[str]:
        """The metrics there are, in the order they came."""
        return list(dict.fromkeys(name for metrics in self.epochs for name in metrics))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table, one line an epoch."""
        write_csv(path, self.epochs)

    def to_pandas(self) -> DataFrame:
        """The metrics as a table of pandas (extra ``pandas``): a row for each epoch, a column for each metric.

        Returns
        -------
        DataFrame
            Its index is "epoch", from 1.

        Raises
        ------
        ImportError
            Pandas is not installed.
        """
        # The import that goes up: the edges to other libraries stand a room above.
        from nnbackend.interop.pandas import history_frame

        return history_frame(self)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the epochs, how the run ended, and nothing else."""
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
        return {"epochs": epochs, "interrupted": self.interrupted, "stopped_by": self.stopped_by}

    def _repr_html_(self) -> str:
        """The table that training prints, for a notebook."""
        from nnbackend.training.history_table import history_html

        return history_html(self)

    def __repr__(self) -> str:
        if not self.epochs:
            return "<History of 0 epochs>"
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].items() if name != "epoch")
        return f"<History of {len(self)} epochs, the last: {last}>"
