"""Limits of the gradients, between the backward pass and the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError
from nnbackend.step.calls import Recorder
from nnbackend.support.checks import above_zero

__all__ = ["Clipping", "check_clipping"]


@dataclass(frozen=True)
class Clipping:
    """A limit of the gradients. The update then waits for all gradients, so it is not fused into their computation.

    Attributes
    ----------
    norm : float or None
        Largest Euclidean norm of all gradients together.
    value : float or None
        Largest magnitude of each element.
    """

    norm: float | None
    value: float | None

    def record(self, recorder: Recorder, gradients: Array) -> None:
        """Record the calls that limit the flat buffer of gradients."""
        if self.norm is not None:
            squares = recorder.model.backend.empty((1,), np.float64)
            recorder.record("square_sum", gradients, squares)
            recorder.record("clip_norm", squares, self.norm, gradients)
        if self.value is not None:
            recorder.record("clip_value", self.value, gradients)

    def __str__(self) -> str:
        limit = f"a global norm of {self.norm:g}" if self.value is None else f"elements of {self.value:g}"
        return f"gradients are clipped to {limit}, so the update is not fused into their computation"


def check_clipping(clip_norm: Any, clip_value: Any) -> Clipping | None:
    """The arguments of `fit`, checked; None if there is no limit.

    Raises
    ------
    InvalidInputError
        One is not above 0, or both are given.
    """
    norm = None if clip_norm is None else above_zero("clip_norm", clip_norm)
    value = None if clip_value is None else above_zero("clip_value", clip_value)
    if norm is not None and value is not None:
        raise InvalidInputError("clip_norm and clip_value are two ways to limit gradients; give one of them")
    return None if norm is None and value is None else Clipping(norm, value)
