"""Rates that depend on the time alone."""

from __future__ import annotations

import math

from nnbackend.schedules.base import Schedule
from nnbackend.support.checks import above_zero, number, positive_integer

__all__ = ["CosineDecay", "CosineRestarts", "ExponentialDecay", "LogCosine", "Polynomial", "StepDecay"]


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


class CosineRestarts(Schedule):
    """Half a cosine from `initial` to `final`, again and again (SGDR, Loshchilov and Hutter 2017).

    Parameters
    ----------
    initial : float
        The rate at the beginning of the first cycle.
    epochs : float
        Length of the first cycle.
    length_factor : float
        Each cycle is this many times as long as the one before; at least 1.
    rate_factor : float
        Each cycle begins with this many times the first rate of the one before; above 0 and at most 1.
    final : float
        The rate at the end of each cycle.

    Raises
    ------
    InvalidInputError
        A value is out of range.
    """

    def __init__(
        self, initial: float, epochs: float, length_factor: float = 1.0, rate_factor: float = 1.0, final: float = 0.0
    ) -> None:
        self.initial = number("initial learning rate", initial, low=0)
        self.epochs = above_zero("epochs", epochs)
        self.length_factor = number("length_factor", length_factor, low=1)
        above_zero("rate_factor", rate_factor)
        self.rate_factor = number("rate_factor", rate_factor, low=0, high=1)
        self.final = number("final learning rate", final, low=0)

    def rate(self, epoch: float) -> float:
        cycle, share = self._place(epoch / self.epochs)
        highest = max(self.initial * self.rate_factor**cycle, self.final)
        return self.final + (highest - self.final) * 0.5 * (1 + math.cos(math.pi * share))

    def _place(self, time: float) -> tuple[int, float]:
        """The cycle, from 0, and the share of it that is over, at a time in lengths of the first cycle."""
        factor = self.length_factor
        if factor == 1:
            return math.floor(time), time - math.floor(time)
        # The first c cycles take (factor^c - 1) / (factor - 1).
        cycle = math.floor(math.log1p(time * (factor - 1)) / math.log(factor))
        # Rounding may have given the cycle before or after.
        for candidate in (cycle + 1, cycle, cycle - 1):
            start = (factor**candidate - 1) / (factor - 1)
            if candidate >= 0 and start <= time:
                return candidate, min((time - start) / factor**candidate, 1.0)
        return 0, 0.0


class LogCosine(Schedule):
    """Cosine waves, each twice as long as the one before, from 0 to `highest` and back to 0 (Holzmueller et al. 2024).

    At the time t, as a fraction of `epochs`, the rate is ``highest / 2 (1 - cos(2 pi log2(1 + (2^cycles - 1) t)))``;
    afterwards it is 0. With four cycles this is the schedule coslog4 of RealMLP, section 3 of "Better by Default:
    Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data", NeurIPS 2024, https://arxiv.org/abs/2407.04491.

    Parameters
    ----------
    highest : float
        The rate at the crest of each wave.
    epochs : float
        Length of all cycles together.
    cycles : int

    Raises
    ------
    InvalidInputError
        A value is out of range.
    """

    def __init__(self, highest: float, epochs: float, cycles: int = 4) -> None:
        self.highest = number("highest learning rate", highest, low=0)
        self.epochs = above_zero("epochs", epochs)
        self.cycles = positive_integer("cycles", cycles)

    def rate(self, epoch: float) -> float:
        share = min(epoch / self.epochs, 1.0)
        cycle = math.log2(1 + (2**self.cycles - 1) * share)
        return self.highest * 0.5 * (1 - math.cos(2 * math.pi * cycle))


class Polynomial(Schedule):
    """``final + (initial - final) (1 - t / epochs)^power`` for `epochs` epochs, `final` afterwards.

    Parameters
    ----------
    initial : float
    epochs : float
    power : float
        1 is linear; above 0.
    final : float

    Raises
    ------
    InvalidInputError
        A value is out of range.
    """

    def __init__(self, initial: float, epochs: float, power: float = 1.0, final: float = 0.0) -> None:
        self.initial = number("initial learning rate", initial, low=0)
        self.epochs = above_zero("epochs", epochs)
        self.power = above_zero("power", power)
        self.final = number("final learning rate", final, low=0)

    def rate(self, epoch: float) -> float:
        left = 1 - min(epoch / self.epochs, 1.0)
        return float(self.final + (self.initial - self.final) * left**self.power)
