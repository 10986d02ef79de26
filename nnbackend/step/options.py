"""What a training step does between the gradients and the next step, beside the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnbackend.errors import InvalidInputError, shown
from nnbackend.step.clipping import Clipping, check_clipping
from nnbackend.support.checks import number, positive_integer

__all__ = ["StepOptions", "check_step_options"]


# `train_on_batch` compares them, to use its recording again.
@dataclass(frozen=True)
class StepOptions:
    """The arguments of `fit` that add operations to a step.

    Attributes
    ----------
    clipping : Clipping or None
        Limits the gradients.
    accumulate : int
        Number of batches whose gradients are averaged for one update.
    part_size : int or None
        This rank's rows of each of these batches; None for one batch.
    ema : float or None
        Decay of the exponential moving average of the weights.
    """

    clipping: Clipping | None = None
    accumulate: int = 1
    ema: float | None = None
    part_size: int | None = None

    def notes(self) -> list[str]:
        """What differs from a plain step, for the log and the summary."""
        notes = [] if self.clipping is None else [str(self.clipping)]
        if self.accumulate > 1:
            notes.append(
                f"the gradients of {self.accumulate} batches are averaged before each update, which is not fused into "
                "their computation"
            )
        if self.ema is not None:
            notes.append(f"each step ends with the moving average of the weights, decay {self.ema:g}")
        return notes


def check_step_options(clip_norm: Any, clip_value: Any, accumulate: Any, ema: Any) -> StepOptions:
    """The arguments of `fit`, checked.

    Raises
    ------
    InvalidInputError
        One is out of range, or two limits are given.
    """
    clipping, batches = check_clipping(clip_norm, clip_value), positive_integer("accumulate", accumulate)
    if ema is None:
        return StepOptions(clipping, batches)
    if isinstance(ema, bool):
        raise InvalidInputError(f"ema must be the decay of the average, such as 0.999, received {shown(ema)}")
    return StepOptions(clipping, batches, number("ema", ema, low=0, high=1, below=True))
