"""Learning-rate schedules: the learning rate as a function of the time since the start of training, in epochs.

Time is continuous: step s of n in epoch e (both from 0) is at time ``e + s / n``. The rates of an epoch are computed in
advance and copied to the device once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError, shown
from nnbackend.support.checks import Plain, above_zero, number, positive_integer, text
from nnbackend.support.monitor import check_monitor, mode_of, monitored_value, rises

__all__ = [
    "Constant",
    "CosineDecay",
    "ExponentialDecay",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "Warmup",
    "as_schedule",
    "checked_rates",
]


class Schedule(ABC, Plain):
    """The learning rate over time."""

    @abstractmethod
    def rate(self, epoch: float) -> float:
        """The learning rate at time `epoch`, in epochs since the start."""

    def start(self) -> None:
        """Reset the state at the start of a training run."""

    def check(self, metrics: Sequence[str]) -> None:
        """Raise InvalidInputError if the schedule needs a metric that is not among these; called before training."""

    def observe(self, logs: Mapping[str, float]) -> None:
        """Observe the metrics of a finished epoch. Most schedules ignore them."""

    def state(self) -> dict[str, Any]:
        """The state that depends on the metrics, as plain JSON, for a checkpoint. Most schedules have none."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state` returned."""

    def epoch_rates(self, epoch: int, steps: int) -> npt.NDArray[np.float64]:
        """The rates of all steps of an epoch, shape (steps,)."""
        return np.array([self.rate(epoch + step / steps) for step in range(steps)])


class Constant(Schedule):
    """A constant rate, the meaning of a plain number."""

    def __init__(self, value: float) -> None:
        self.value = number("learning rate", value, low=0)

    def rate(self, epoch: float) -> float:
        return self.value

    def epoch_rates(self, epoch: int, steps: int) -> npt.NDArray[np.float64]:
        # One by one takes longer than the steps of a small network.
        return np.full(steps, self.value, np.float64)


class StepDecay(Schedule):
    """``initial * factor ** floor(epoch / every)``."""

    def __init__(self, initial: float, factor: float = 0.5, every: float = 10) -> None:
        self.initial = number("initial learning rate", initial, low=0)
        self.factor = above_zero("factor", factor)
        self.every = above_zero("every", every)

    def rate(self, epoch: float) -> float:
        return self.initial * self.factor ** math.floor(epoch / self.every)


class ExponentialDecay(Schedule):
    """``initial * decay ** epoch``."""

    def __init__(self, initial: float, decay: float = 0.95) -> None:
        self.initial = number("initial learning rate", initial, low=0)
        self.decay = above_zero("decay", decay)

    def rate(self, epoch: float) -> float:
        return float(self.initial * self.decay**epoch)


class CosineDecay(Schedule):
    """Half a cosine from `initial` to `final` in `epochs` epochs, `final` afterwards (Loshchilov and Hutter 2017)."""

    def __init__(self, initial: float, epochs: float, final: float = 0.0) -> None:
        self.initial = number("initial learning rate", initial, low=0)
        self.epochs = above_zero("epochs", epochs)
        self.final = number("final learning rate", final, low=0)

    def rate(self, epoch: float) -> float:
        share = min(epoch / self.epochs, 1.0)
        return self.final + (self.initial - self.final) * 0.5 * (1 + math.cos(math.pi * share))


class Warmup(Schedule):
    """Linear warm-up to the first rate of another schedule, followed by that schedule.

    Parameters
    ----------
    epochs : float
        Length of the warm-up.
    then : float or Schedule
        The schedule after the warm-up; its time starts at the end of the warm-up.
    start : float
        First rate, as a fraction of the rate after the warm-up; above 0, so that no step is wasted.
    """

    begin: float

    def __init__(self, epochs: float, then: float | Schedule, start: float = 0.01) -> None:
        above_zero("warm-up epochs", epochs)
        above_zero("start", start)
        self.epochs = epochs
        self.then = as_schedule(then)
        self.begin = start

    def __repr__(self) -> str:
        return f"Warmup(epochs={self.epochs!r}, then={self.then!r}, start={self.begin!r})"

    def rate(self, epoch: float) -> float:
        if epoch < self.epochs:
            return self.then.rate(0) * (self.begin + (1 - self.begin) * epoch / self.epochs)
        return self.then.rate(epoch - self.epochs)

    def check(self, metrics: Sequence[str]) -> None:
        self.then.check(metrics)

    def start(self) -> None:
        self.then.start()

    def observe(self, logs: Mapping[str, float]) -> None:
        self.then.observe(logs)

    def state(self) -> dict[str, Any]:
        return self.then.state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.then.set_state(state)


class ReduceOnPlateau(Schedule):
    """Multiply the rate by `factor` whenever the monitored metric has not improved for `patience` epochs.

    Parameters
    ----------
    initial : float
    factor : float
        Above 0 and below 1.
    patience : int
        Number of epochs without improvement before the rate is reduced.
    monitor : str
        "val_loss", "val_accuracy", "loss", "accuracy", or a metric that a callback adds. Without validation data,
        "val_loss" means "loss".
    minimum : float
        Lower limit of the rate.
    mode : "auto", "max" or "min"
        Whether the metric is better if it is higher. "auto" knows this of common names, such as "val_auc".
    """

    _mode = "auto"

    def __init__(
        self,
        initial: float,
        factor: float = 0.5,
        patience: int = 3,
        monitor: str = "val_loss",
        minimum: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self.initial = number("initial learning rate", initial, low=0)
        self.factor = above_zero("factor", factor)
        self.patience = positive_integer("patience", patience)
        self.monitor = text("monitor", monitor)
        self.minimum = number("minimum learning rate", minimum, low=0)
        # Not a public attribute, because reprs with a mode differ from those in checkpoints of older versions.
        self._mode = mode_of(mode)
        if self.factor >= 1:
            raise InvalidInputError(f"factor must be above 0 and below 1, received {factor!r}")
        self.start()

    @property
    def mode(self) -> str:
        """Whether the metric is better if it is higher: "max", "min", or "auto"."""
        return self._mode

    def _monitored(self, metrics: Iterable[str]) -> str:
        plain = self.monitor.removeprefix("val_")
        return plain if "val_loss" not in metrics and self.monitor not in metrics and plain in metrics else self.monitor

    def check(self, metrics: Sequence[str]) -> None:
        check_monitor(self._monitored(metrics), metrics, self._mode)

    def start(self) -> None:
        self._scale, self._best, self._waited = 1.0, math.inf, 0

    def state(self) -> dict[str, Any]:
        # The best metric is infinite before the first epoch, and JSON has no infinity.
        best = self._best if math.isfinite(self._best) else None
        return {"scale": self._scale, "best": best, "waited": self._waited}

    def set_state(self, state: Mapping[str, Any]) -> None:
        best = state["best"]
        self._scale, self._waited = float(state["scale"]), int(state["waited"])
        self._best = math.inf if best is None else float(best)

    def observe(self, logs: Mapping[str, float]) -> None:
        value = monitored_value(self._monitored(logs), logs)
        if rises(self.monitor, self._mode):
            value = -value
        if value < self._best:
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            self._scale, self._waited = self._scale * self.factor, 0

    def rate(self, epoch: float) -> float:
        return max(self.initial * self._scale, self.minimum)

    def __repr__(self) -> str:
        call = super().__repr__()
        return call if self._mode == "auto" else f"{call[:-1]}, mode={self._mode!r})"


def checked_rates(schedule: Schedule, epoch: int, steps: int) -> npt.NDArray[np.float64]:
    """The rates of all steps of an epoch, shape (steps,).

    Raises
    ------
    InvalidInputError
        The schedule gives something else than finite numbers of at least 0.
    """
    try:
        rates = np.asarray(schedule.epoch_rates(epoch, steps), np.float64)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InvalidInputError(f"{shown(schedule)} gives no learning rate in epoch {epoch + 1}: {error}") from error
    if rates.shape != (steps,):
        raise InvalidInputError(
            f"{shown(schedule)} must give {steps} learning rates for an epoch, received shape {rates.shape}"
        )
    wrong = ~(np.isfinite(rates) & (rates >= 0))
    if wrong.any():
        raise InvalidInputError(
            f"{shown(schedule)} gives the learning rate {rates[wrong][0]} in epoch {epoch + 1}; it must be finite and "
            "not negative"
        )
    return rates


def as_schedule(rate: float | Schedule) -> Schedule:
    """Convert a number to a constant schedule; a schedule is returned unchanged."""
    if not isinstance(rate, Schedule | int | float | np.integer | np.floating) or isinstance(rate, bool):
        raise InvalidInputError(f"a learning rate must be a number or a schedule, received {shown(rate)}")
    return rate if isinstance(rate, Schedule) else Constant(rate)


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
