"""The base class of callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nnbackend.network import Network
from nnbackend.support.attributes import Guarded, checked_change, constructor_arguments
from nnbackend.training.history import History

__all__ = ["Callback", "Metrics", "warn_if_not_written"]

#: The metrics of an epoch by name; callbacks may add to them.
Metrics = dict[str, float]


class Callback(Guarded):
    """Base class of code that runs while a network trains: derive from it and override what you need.

    All methods are called on the host, between epochs; nothing is called between steps, because steps run without the
    host. The methods of this class do nothing.

    Attributes
    ----------
    first_rank_only : bool
        Whether only the first of several ranks calls it, because it writes or shows something. Other callbacks are
        called on every rank, with the same metrics.
    adds_metrics : sequence of str, optional
        Names of the metrics that `on_epoch_end` adds. If they are given, a name that no callback adds cannot be
        monitored; otherwise this is found only after the first epoch.
    """

    first_rank_only: ClassVar[bool] = False
    adds_metrics: Sequence[str] | None = None

    def _change(self, name: str, value: Any) -> Any:
        return checked_change(self, name, value) if name in constructor_arguments(self) else value

    def check(self, metrics: Sequence[str]) -> None:
        """Raise InvalidInputError if a metric that is needed is missing; called before anything is changed."""

    def on_train_begin(self, network: Network, epochs: int) -> None:
        """Training begins, for at most `epochs` epochs."""

    def on_epoch_begin(self, network: Network, epoch: int) -> None:
        """Epoch `epoch` (from 1) begins."""

    def on_steps_end(self, network: Network, epoch: int, losses: npt.NDArray[np.float64]) -> None:
        """The steps of epoch `epoch` have ended; `losses`, (steps,), are the means over each minibatch before its
        update. Called before `on_epoch_end` or `on_epoch_cut`."""

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        """Epoch `epoch` has ended with these metrics. Return a reason to end the training, or None to continue.

        Numbers that are added to `metrics` are part of the history, and can be monitored by the callbacks that follow.
        Setting ``network.optimizer.learning_rate`` changes the rate from the next epoch on.
        """
        return None

    def on_epoch_cut(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        """Ctrl-C has ended epoch `epoch` early: its training metrics cover only some of the rows."""
        return self.on_epoch_end(network, epoch, metrics)

    def on_train_end(self, network: Network, history: History) -> None:
        """Training has ended without an error."""

    def state(self, network: Network) -> dict[str, Any]:
        """Its state for a checkpoint: JSON values and NumPy arrays by name."""
        return {}

    def set_state(self, network: Network, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`; called after `on_train_begin` in a resumed run."""


@contextmanager
def warn_if_not_written() -> Iterator[None]:
    """Turn an OSError of writing a file into a RuntimeWarning: a full disk must not end hours of training."""
    try:
        yield
    except OSError as error:
        warnings.warn(
            f"not written: {error}; training continues, and the next epoch tries again",
            RuntimeWarning,
            stacklevel=4,
        )
