"""The base class of schedules, a constant rate, and checks of what a schedule gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError, shown
from nnbackend.support.checks import Plain, number

__all__ = ["Constant", "Schedule", "as_schedule", "checked_momenta", "checked_rates"]


class Schedule(ABC, Plain):
    """The learning rate over time."""

    @abstractmethod
    def rate(self, epoch: float) -> float:
        """The learning rate at time `epoch`, in epochs since the start."""

    @property
    def sets_momentum(self) -> bool:
        """Whether `epoch_momenta` gives the momentum of each step: beta1 of Adam and AdamW, the momentum of SGD."""
        return False

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

    def epoch_momenta(self, epoch: int, steps: int) -> npt.NDArray[np.float64]:
        """The momenta of all steps of an epoch, shape (steps,), at least 0 and below 1; used if `sets_momentum`."""
        raise NotImplementedError(f"{type(self).__name__} sets the momentum, but does not say to what")


class Constant(Schedule):
    """A constant rate, the meaning of a plain number."""

    def __init__(self, value: float) -> None:
        self.value = number("learning rate", value, low=0)

    def rate(self, epoch: float) -> float:
        return self.value

    def epoch_rates(self, epoch: int, steps: int) -> npt.NDArray[np.float64]:
        # One by one takes longer than the steps of a small network.
        return np.full(steps, self.value, np.float64)


def checked_rates(schedule: Schedule, epoch: int, steps: int) -> npt.NDArray[np.float64]:
    """The rates of all steps of an epoch, shape (steps,).

    Raises
    ------
    InvalidInputError
        The schedule gives something else than finite numbers of at least 0.
    """
    rates = _of_epoch(schedule, schedule.epoch_rates, "learning rate", epoch, steps)
    _refuse(schedule, rates, ~(np.isfinite(rates) & (rates >= 0)), "learning rate", epoch, "finite and not negative")
    return rates


def checked_momenta(schedule: Schedule, epoch: int, steps: int) -> npt.NDArray[np.float64]:
    """The momenta of all steps of an epoch, shape (steps,), of a schedule that sets them.

    Raises
    ------
    InvalidInputError
        The schedule gives something else than numbers of at least 0 and below 1.
    """
    momenta = _of_epoch(schedule, schedule.epoch_momenta, "momentum", epoch, steps)
    _refuse(schedule, momenta, ~((momenta >= 0) & (momenta < 1)), "momentum", epoch, "at least 0 and below 1")
    return momenta


def _of_epoch(
    schedule: Schedule, method: Callable[[int, int], Any], what: str, epoch: int, steps: int
) -> npt.NDArray[np.float64]:
    """What a method of a schedule gives for the steps of an epoch, as an array."""
    try:
        values = np.asarray(method(epoch, steps), np.float64)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InvalidInputError(f"{shown(schedule)} gives no {what} in epoch {epoch + 1}: {error}") from error
    if values.shape != (steps,):
        raise InvalidInputError(
            f"{shown(schedule)} must give a {what} for each of the {steps} steps of an epoch, received shape "
            f"{values.shape}"
        )
    return values


def _refuse(
    schedule: Schedule, values: npt.NDArray[np.float64], wrong: npt.NDArray[np.bool_], what: str, epoch: int, rule: str
) -> None:
    if wrong.any():
        raise InvalidInputError(
            f"{shown(schedule)} gives the {what} {values[wrong][0]} in epoch {epoch + 1}; it must be {rule}"
        )


def as_schedule(rate: float | Schedule) -> Schedule:
    """Convert a number to a constant schedule; a schedule is returned unchanged."""
    if not isinstance(rate, Schedule | int | float | np.integer | np.floating) or isinstance(rate, bool):
        raise InvalidInputError(f"a learning rate must be a number or a schedule, received {shown(rate)}")
    return rate if isinstance(rate, Schedule) else Constant(rate)
