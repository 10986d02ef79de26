"""Schedules of two parts, and those that follow the metrics or set the momentum, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.schedules.base import Schedule, as_schedule
from nnbackend.support.checks import above_zero, flag, number, positive_integer, text
from nnbackend.support.monitor import check_monitor, mode_of, monitored_value, rises

__all__ = ["OneCycle", "ReduceOnPlateau", "Warmup"]


class Warmup(Schedule):
    """Linear warm-up to the first rate of another schedule, followed by that schedule.

    Parameters
    ----------
    epochs : float
        Length of the warm-up.
    then : float or Schedule
        The schedule after the warm-up, other than `OneCycle`; its time starts at the end of the warm-up.
    start : float
        First rate, as a fraction of the rate after the warm-up; above 0, so that no step is wasted.
    """

    begin: float

    def __init__(self, epochs: float, then: float | Schedule, start: float = 0.01) -> None:
        above_zero("warm-up epochs", epochs)
        above_zero("start", start)
        self.epochs = epochs
        self.then = as_schedule(then)
        if isinstance(self.then, OneCycle) or self.then.sets_momentum:
            raise InvalidInputError(
                f"{shown(self.then)} cannot follow a warm-up, because it has its own: give it to the optimizer without "
                "Warmup"
            )
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


class OneCycle(Schedule):
    """One cycle: the rate rises to its maximum and falls to almost zero, while the momentum falls and rises again.

    The values of each step are those of PyTorch's ``OneCycleLR``, with its names for the divisors and the momenta
    (Smith and Topin 2017, Super-convergence).

    Parameters
    ----------
    max_rate : float
        The highest learning rate, at the end of the warm-up.
    epochs : float
        Length of the cycle: as a rule, the epochs given to `fit`. Later steps have the last values of the cycle.
    warmup : float
        The share of the cycle in which the rate rises, in [0, 1].
    anneal : {"cosine", "linear"}
        How values change, in both parts.
    div_factor : float
        The first rate is ``max_rate / div_factor``.
    final_div_factor : float
        The last rate is ``max_rate / div_factor / final_div_factor``.
    cycle_momentum : bool
        Whether to set the momentum, too: beta1 of Adam and AdamW, the momentum of SGD. Their own value is then not
        used. False leaves it as it is.
    base_momentum, max_momentum : float
        The momentum at the highest rate, and at the first and last step; ``0 <= base_momentum <= max_momentum < 1``.

    Raises
    ------
    InvalidInputError
        A value is out of range.
    UnknownNameError
        `anneal` is neither of the two.

    Notes
    -----
    `fit` numbers the n steps of the cycle from 0 to n - 1. The rate is highest at step ``warmup * n - 1`` and lowest at
    step n - 1. Single batches are not part of a cycle, so `train_on_batch` refuses it.
    """

    def __init__(
        self,
        max_rate: float,
        epochs: float,
        warmup: float = 0.3,
        anneal: str = "cosine",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
    ) -> None:
        self.max_rate = number("the highest learning rate", max_rate, low=0)
        self.epochs = above_zero("epochs", epochs)
        self.warmup = number("warmup", warmup, low=0, high=1)
        if not isinstance(anneal, str) or anneal not in _ANNEAL:
            raise UnknownNameError("anneal", anneal, _ANNEAL)
        self.anneal = anneal
        self.div_factor = above_zero("div_factor", div_factor)
        self.final_div_factor = above_zero("final_div_factor", final_div_factor)
        self.cycle_momentum = flag("cycle_momentum", cycle_momentum)
        self.base_momentum = number("base_momentum", base_momentum, low=0, high=1, below=True)
        self.max_momentum = number("max_momentum", max_momentum, low=0, high=1, below=True)
        if self.base_momentum > self.max_momentum:
            raise InvalidInputError(
                f"base_momentum must be at most max_momentum, received {base_momentum!r} and {max_momentum!r}"
            )

    @property
    def sets_momentum(self) -> bool:
        return self.cycle_momentum

    def rate(self, epoch: float) -> float:
        return self._value(self._rates, epoch, self.warmup * self.epochs, self.epochs)

    def momentum(self, epoch: float) -> float:
        """The momentum at time `epoch`, in epochs since the start."""
        return self._value(self._momenta, epoch, self.warmup * self.epochs, self.epochs)

    def epoch_rates(self, epoch: int, steps: int) -> npt.NDArray[np.float64]:
        return self._epoch_values(self._rates, epoch, steps)

    def epoch_momenta(self, epoch: int, steps: int) -> npt.NDArray[np.float64]:
        return self._epoch_values(self._momenta, epoch, steps)

    @property
    def _rates(self) -> tuple[float, float, float]:
        first = self.max_rate / self.div_factor
        return first, self.max_rate, first / self.final_div_factor

    @property
    def _momenta(self) -> tuple[float, float, float]:
        return self.max_momentum, self.base_momentum, self.max_momentum

    def _epoch_values(self, values: tuple[float, float, float], epoch: int, steps: int) -> npt.NDArray[np.float64]:
        total = self.epochs * steps
        places = range(epoch * steps, (epoch + 1) * steps)
        return np.array([self._value(values, place, self.warmup * total - 1, total - 1) for place in places])

    def _value(self, values: tuple[float, float, float], place: float, peak: float, end: float) -> float:
        """The value at a place of a cycle that has its second value at `peak`, and its third from `end` on."""
        first, second, third = values
        anneal = _ANNEAL[self.anneal]
        if place <= peak:
            return anneal(first, second, place / peak if peak > 0 else 1.0)
        return anneal(second, third, min((place - peak) / (end - peak), 1.0) if end > peak else 1.0)


#: How a value changes from a to b, by name: functions of a, b and the share of the way.
_ANNEAL: dict[str, Callable[[float, float, float], float]] = {
    "cosine": lambda a, b, share: b + (a - b) / 2 * (1 + math.cos(math.pi * share)),
    "linear": lambda a, b, share: a + (b - a) * share,
}
