"""Learning-rate schedules: the learning rate, and with `OneCycle` the momentum, as a function of the time in epochs.

Time begins with the training and is continuous: step s of n in epoch e (both from 0) is at time ``e + s / n``. The
rates of an epoch are computed in advance and copied to the device once.
"""

from __future__ import annotations

from nnbackend.schedules.base import Constant, Schedule, as_schedule, checked_momenta, checked_rates
from nnbackend.schedules.combined import OneCycle, ReduceOnPlateau, Warmup
from nnbackend.schedules.decay import CosineDecay, CosineRestarts, ExponentialDecay, LogCosine, Polynomial, StepDecay

__all__ = [
    "Constant",
    "CosineDecay",
    "CosineRestarts",
    "ExponentialDecay",
    "LogCosine",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "Warmup",
    "as_schedule",
    "checked_momenta",
    "checked_rates",
]


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
