"""A search for a learning rate: one short training with rates that grow from step to step (Smith 2017)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError, TrainingDivergedError, UnknownNameError, shown
from nnbackend.losses import Loss
from nnbackend.network import Network
from nnbackend.optimizers import Optimizer
from nnbackend.schedules import Schedule
from nnbackend.support.checks import above_zero, positive_integer
from nnbackend.training.callbacks.base import Callback, Metrics
from nnbackend.training.fit import fit
from nnbackend.training.plan import get_optimizer

__all__ = ["LearningRates", "find_learning_rate"]

#: Arguments of `fit` that are passed on.
_OPTIONS = (
    "accumulate", "augment", "class_weight", "clip_norm", "clip_value", "label_smoothing", "sample_weight", "shuffle",
    "stream",
)  # fmt: skip

#: Steps between looks at the losses.
_PORTION = 5

#: Steps before and after a step that its smoothed loss depends on.
_NEAR = 5

#: The search ends where the moving average of the loss is this many times its minimum, and this is the share of earlier
#: steps in that average.
_TOO_LARGE, _EARLIER = 4.0, 0.9

#: Standard deviations of the first losses by which the loss must fall.
_CLEARLY = 3.0

#: What smoothing leaves of the standard deviation of independent losses.
_SMOOTHED = 0.4

#: Fewer steps than this show no slope.
_FEWEST = 10


class LearningRates(NamedTuple):
    """The result of :func:`nnbackend.find_learning_rate`.

    Attributes
    ----------
    suggestion : float
        The rate at which the smoothed loss falls fastest.
    rates : (steps,) float64
        The rate of each step.
    losses : (steps,) float64
        The mean loss of each step's rows before its update, smoothed over some steps before and after.
    """

    suggestion: float
    rates: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]


def find_learning_rate(
    network: Network,
    x: Any,
    y: Any = None,
    *,
    loss: str | Loss | None = None,
    optimizer: Optimizer | str = "adam",
    batch_size: int | None = None,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    **options: Any,
) -> LearningRates:
    """Suggest a learning rate, from a short training of a copy of the network with growing rates.

    The rate of each step is a constant factor above that of the step before. The loss first hardly changes, then
    falls, and at last grows; the suggestion is where it falls fastest. It suits the start of a training with this
    batch size, and the maximum of a schedule such as :class:`nnbackend.OneCycle`. Training ends early where the loss
    has become several times its minimum.

    Parameters
    ----------
    network : Network
        It is not changed. The copy begins with its weights.
    x, y, loss, batch_size
        As for :meth:`nnbackend.Network.fit`.
    optimizer : Optimizer or str
        Its learning rate is not used, and it is not changed.
    lowest, highest : float
        The first rate, and that of the last step; 0 < lowest < highest.
    steps : int
        Number of steps from one to the other, at least 10. From fewer than about 50, there is often no suggestion.
    **options
        Arguments of :meth:`nnbackend.Network.fit` that change steps: `sample_weight`, `class_weight`, `clip_norm`,
        `clip_value`, `accumulate`, `label_smoothing`, `augment`, `shuffle`, `stream`.

    Returns
    -------
    LearningRates
        A tuple ``(suggestion, rates, losses)``, which :func:`nnbackend.plotting.plot_learning_rates` draws.

    Raises
    ------
    InvalidInputError, UnknownNameError
        As for `fit`; or the loss does not fall at any of the rates.
    """
    schedule = _Growing(above_zero("lowest", lowest), above_zero("highest", highest), positive_integer("steps", steps))
    for name in options:
        if name not in _OPTIONS:
            raise UnknownNameError("option of find_learning_rate", name, _OPTIONS)
    tried, watch = copy.deepcopy(network), _Watch()
    chosen = copy.deepcopy(get_optimizer(optimizer))
    chosen.learning_rate = schedule
    training: dict[str, Any] = {
        "epochs": -(-steps // _PORTION),
        "steps_per_epoch": _PORTION,
        "batch_size": batch_size,
        "loss": loss,
        "optimizer": chosen,
        "callbacks": [watch],
        "verbose": False,
    }
    # A run may diverge in its last portion; the losses before it are known.
    with contextlib.suppress(TrainingDivergedError):
        fit(tried, x, y, **training, **options)
    raw = np.array(watch.losses[:steps])
    losses, rates = _around(raw), schedule.epoch_rates(0, steps)[: len(raw)]
    return LearningRates(_steepest(rates, losses, raw), rates, losses)


class _Growing(Schedule):
    """Rates that grow by the same factor from step to step."""

    def __init__(self, lowest: float, highest: float, steps: int) -> None:
        if lowest >= highest:
            raise InvalidInputError(f"lowest must be below highest, received {shown(lowest)} and {shown(highest)}")
        if steps < _FEWEST:
            raise InvalidInputError(f"steps must be at least {_FEWEST}, received {steps}")
        self._lowest, self._growth, self._last = lowest, (highest / lowest) ** (1 / (steps - 1)), steps - 1

    def rate(self, epoch: float) -> float:
        return float(self._lowest * self._growth ** min(round(epoch * _PORTION), self._last))

    def epoch_rates(self, epoch: int, steps: int) -> npt.NDArray[np.float64]:
        # The last portion may have more steps than are left.
        places = np.minimum(np.arange(epoch * _PORTION, epoch * _PORTION + steps, dtype=np.float64), self._last)
        rates: npt.NDArray[np.float64] = self._lowest * self._growth**places
        return rates


class _Watch(Callback):
    """Keeps the losses, and ends the training where they have become too large."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_steps_end(self, network: Network, epoch: int, losses: npt.NDArray[np.float64]) -> None:
        self.losses += losses.tolist()

    def on_epoch_end(self, network: Network, epoch: int, metrics: Metrics) -> str | None:
        averages = _averages(self.losses)
        least = float(averages.min())
        grown = len(averages) >= _FEWEST and averages[-1] - least > (_TOO_LARGE - 1) * abs(least)
        return "the loss has grown" if grown else None


def _averages(losses: Sequence[float]) -> npt.NDArray[np.float64]:
    """The moving average of the losses, corrected for its start."""
    averages, average = np.empty(len(losses)), 0.0
    for place, value in enumerate(losses):
        average = _EARLIER * average + (1 - _EARLIER) * value
        averages[place] = average / (1 - _EARLIER ** (place + 1))
    return averages


def _around(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The losses, smoothed over the steps before and after: a moving average would lag behind the rates."""
    weights = np.bartlett(2 * _NEAR + 3)[1:-1]
    padded = np.pad(losses, _NEAR)
    present = np.pad(np.ones(len(losses)), _NEAR)
    smoothed: npt.NDArray[np.float64] = np.convolve(padded, weights, "valid") / np.convolve(present, weights, "valid")
    return smoothed


def _steepest(rates: npt.NDArray[np.float64], losses: npt.NDArray[np.float64], raw: npt.NDArray[np.float64]) -> float:
    """The rate at which the smoothed losses fall fastest, before their minimum."""
    least = int(losses.argmin()) if len(losses) else 0
    # Losses also differ because each step has other rows. The first ones, before smoothing, show how much.
    first = raw[: max(len(raw) // 4, _FEWEST)]
    if least <= _NEAR or first.mean() - losses[least] <= _CLEARLY * _SMOOTHED * first.std():
        low, high = (rates[0], rates[-1]) if len(rates) else (np.nan, np.nan)
        raise InvalidInputError(
            f"the loss does not fall at any learning rate from {low:.3g} to {high:.3g}, so none can be suggested; "
            "give another range, scale the inputs, or check the targets"
        )
    slopes = np.gradient(losses[: least + 1], np.log(rates[: least + 1]))
    # The first losses are those of fewer rows.
    return float(rates[_NEAR + int(slopes[_NEAR:].argmin())])
