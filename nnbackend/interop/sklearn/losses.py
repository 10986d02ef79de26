"""The losses as scikit-learn reports them: how they are recorded, and those of predictions on the host.

scikit-learn clips probabilities to ``[eps, 1 - eps]`` when it computes the cross-entropy that it reports, but not in
the gradient. `recorded_loss` does the same on the device: a sigmoid's probability is clipped with its logit, and a
softmax's with the loss of the row. scikit-learn's Poisson loss is a deviance, from which this package's negative
log-likelihood differs by `poisson_constants`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import xlogy

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.backends.training_operations import TrainingOperations
from nnbackend.losses import Loss, get_loss

__all__ = ["factors", "loss_of_predictions", "poisson_constants", "recorded_loss"]


def factors(loss: str, outputs: int) -> tuple[float, float]:
    """1 / f, and the factor that converts this package's loss with such weights to scikit-learn's; see `run.py`.

    scikit-learn sums cross-entropy and Poisson deviance over several outputs, this package averages them. For squared
    errors, scikit-learn takes the gradient of half their sum over the outputs, and reports half their mean.
    """
    if loss == "mean_squared_error":
        return outputs / 2, 1 / outputs
    return (1.0 if loss == "softmax_cross_entropy" else outputs), 1.0


def recorded_loss(name: str, backend: Backend) -> Loss:
    """The loss of that name, which reports clipped cross-entropies on backends that can clip."""
    loss = get_loss(name)
    # Backends of other packages may be older than the operation.
    clips = getattr(type(backend), "clip_value", None) is not TrainingOperations.clip_value
    return _Clipped(loss) if clips and loss.takes_probabilities else loss


class _Clipped(Loss):
    """A cross-entropy whose gradient is unchanged and whose value is that of clipped probabilities."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.name, self.output_activation, self.targets = loss.name, loss.output_activation, loss.targets

    def record(
        self, step: Any, outputs: Any, targets: Any, weights: Any | None, gradient: Any, row_losses: Any
    ) -> None:
        backend, dtype = step.model.backend, step.model.dtype
        rows, columns = outputs.shape
        eps = float(np.finfo(dtype).eps)
        if self.targets == "independent":
            # Before the gradient is written, which may use the same memory.
            flat = backend.empty((rows * columns,), dtype)
            clipped = backend.view(flat, 0, (rows, columns))
            step.record("activation_forward", outputs, "identity", 0.0, clipped)
            step.record("clip_value", math.log((1 - eps) / eps), flat)
            self.loss.record(step, outputs, targets, weights, gradient, row_losses)
            self.loss.record(step, clipped, targets, weights, step.like(outputs), row_losses)
            return
        flat = backend.empty((2 * rows,), dtype)
        own, losses = backend.view(flat, 0, (2, rows)), backend.view(flat, 0, (rows,))
        unused = step.like(outputs) if weights is not None else gradient
        self.loss.record(step, outputs, targets, None, unused, own)
        step.record("clip_value", -math.log(eps), losses)
        if weights is not None:
            # With an exponent of 0 it multiplies by the weights.
            step.record("focal_rows", weights, 0.0, unused, own)
            self.loss.record(step, outputs, targets, weights, gradient, row_losses)
        step.record("activation_forward", own, "identity", 0.0, row_losses)


def poisson_constants(loss: str, targets: HostArray) -> HostArray | None:
    """What scikit-learn's Poisson loss of each row has beyond ``exp(a) - t a``, (n,) float64; None for other losses."""
    if loss != "poisson":
        return None
    counts = targets.reshape(len(targets), -1).astype(np.float64)
    constants: HostArray = (xlogy(counts, counts) - counts).sum(axis=1)
    return constants


def loss_of_predictions(loss: str, predictions: HostArray, targets: HostArray, weights: HostArray | None) -> float:
    """scikit-learn's loss of a network's predictions, without a penalty.

    Parameters
    ----------
    loss : str
    predictions : (n, outputs) array
    targets : (n,) labels, or (n, outputs) array
    weights : (n,) array or None
    """
    eps = np.finfo(predictions.dtype).eps
    p = predictions.astype(np.float64)
    if loss == "softmax_cross_entropy":
        of_rows = -np.log(np.clip(p[np.arange(len(p)), targets], eps, 1 - eps))
        return float(np.average(of_rows, weights=weights))
    t = targets.reshape(p.shape).astype(np.float64)
    if loss == "mean_squared_error":
        return 0.5 * float(np.average((t - p) ** 2, weights=weights, axis=0).mean())
    if loss == "poisson":
        each = xlogy(t, t / p) - t + p
    else:
        p = np.clip(p, eps, 1 - eps)
        each = -xlogy(t, p) - xlogy(1 - t, 1 - p)
    return float(np.average(each, weights=weights, axis=0).sum())
