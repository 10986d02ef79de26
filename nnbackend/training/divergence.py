"""Runs that have diverged end, with the last good weights in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnbackend.errors import TrainingDivergedError
from nnbackend.network import Network
from nnbackend.training.run import EpochResult
from nnbackend.training.setup import weights_are_finite

__all__ = ["check_finite", "check_validation"]


def check_finite(network: Network, snapshots: tuple[Any, Any], epoch: int, result: EpochResult, look: bool) -> None:
    """Stop a run that has diverged, with the last good weights in place.

    Parameters
    ----------
    snapshots : the parameters at the beginning of this epoch, and of the one before
    look : bool
        Whether to read the weights, if all losses are finite.
    """
    before, earlier = snapshots
    bad = ~np.isfinite(result.losses)
    steps = len(bad)
    if result.skipped < steps:
        # What was left out broke nothing; the rest is sound, as somebody has looked already.
        bad &= result.skipped == 0
    if not bad.any() and (not look or weights_are_finite(network)):
        return
    network.restore(before)
    network.optimizer_state = None
    if bad.any() and weights_are_finite(network):
        step = int(np.argmax(bad)) + 1
        what = f"the loss became {result.losses[step - 1]} in epoch {epoch}, step {step} of {steps}"
    else:
        if bad.any():
            network.restore(earlier)
            epoch -= 1
        step = steps
        what = f"weights became NaN or infinite in the last step of epoch {epoch}"
    raise TrainingDivergedError(
        f"{what}; the network has the weights with which that epoch began. "
        "Lower the learning rate, or scale the inputs.",
        epoch,
        step,
    )


def check_validation(network: Network, before: Any, epoch: int, steps: int, metrics: Mapping[str, float]) -> None:
    """Huge weights may be finite and give no finite loss all the same."""
    if np.isfinite(metrics.get("val_loss", 0.0)):
        return
    network.restore(before)
    network.optimizer_state = None
    raise TrainingDivergedError(
        f"the validation loss became {metrics['val_loss']} after epoch {epoch}; the network has the weights with which "
        "that epoch began. Lower the learning rate, or scale the inputs.",
        epoch,
        steps,
    )
