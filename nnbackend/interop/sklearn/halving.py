"""Successive halving: candidates are compared before they are trained to the end, and the best continue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.errors import InvalidInputError
from nnbackend.interop.sklearn.trials import Trial
from nnbackend.support.checks import positive_integer

__all__ = ["Rounds", "best_first"]


class Rounds:
    """The rounds of successive halving.

    Parameters
    ----------
    trials : sequence of Trial
    candidates : int
    factor : int
    least : int
        Epochs before the first comparison, at least.

    Attributes
    ----------
    epochs : list of int
        Up to which epoch candidates train in each round.
    counts : list of int
        How many take part.

    Raises
    ------
    InvalidInputError
        They train for different numbers of epochs.
    """

    def __init__(self, trials: Sequence[Trial], candidates: int, factor: int, least: int) -> None:
        if any(trial.last.solver == "lbfgs" for trial in trials):
            raise InvalidInputError(
                "halving=True pauses trainings between epochs, which solver='lbfgs' does not have; use solver='adam', "
                "or halving=False"
            )
        found = {positive_integer("max_iter", trial.last.max_iter) for trial in trials}
        if len(found) > 1:
            raise InvalidInputError(
                "halving=True compares candidates after equally many epochs, but max_iter has the values "
                f"{sorted(found)}; give one"
            )
        (most,) = found
        rounds = 1
        while factor**rounds <= candidates and math.ceil(most / factor**rounds) >= least:
            rounds += 1
        self.epochs = [math.ceil(most / factor**left) for left in reversed(range(rounds))]
        self.counts = [math.ceil(candidates / factor**number) for number in range(rounds)]


def best_first(scores: Any) -> list[int]:
    """The places of the scores from the best to the worst; equal ones in their order, those of failed fits last."""
    return sorted(range(len(scores)), key=lambda place: (np.isnan(scores[place]), -scores[place], place))
