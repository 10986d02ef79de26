"""The losses that have a name, and smoothed labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.losses.base import Loss, TargetKind
from nnbackend.support.checks import above_zero, number

__all__ = [
    "Focal",
    "Huber",
    "LogCosh",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Poisson",
    "Quantile",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "smoothed",
]


class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of one class of several; formula in :meth:`nnbackend.Backend.softmax_cross_entropy`.

    The last layer has no activation: the loss applies softmax, and so do predictions. Targets are labels, one-hot rows
    or probabilities.
    """

    name = "softmax_cross_entropy"
    output_activation = "softmax"
    targets = "exclusive"


class SigmoidCrossEntropy(Loss):
    """Cross-entropy of yes-or-no outputs; formula in :meth:`nnbackend.Backend.sigmoid_cross_entropy`.

    The last layer has no activation: the loss applies the sigmoid, and so do predictions.
    """

    name = "sigmoid_cross_entropy"
    output_activation = "sigmoid"
    targets = "independent"


class MeanSquaredError(Loss):
    """Squared error; formula in :meth:`nnbackend.Backend.mean_squared_error`."""

    name = "mean_squared_error"


class _Elementwise(Loss):
    """A mean over outputs of a loss in ELEMENTWISE_LOSSES."""

    _operation: ClassVar[str]

    def record(
        self, step: Any, outputs: Any, targets: Any, weights: Any | None, gradient: Any, row_losses: Any
    ) -> None:
        parameters = step.constant(np.broadcast_to(self._parameters(), outputs.shape[1:]))
        step.record("elementwise_loss", outputs, targets, weights, self._operation, parameters, gradient, row_losses)

    def _parameters(self) -> float | Sequence[float]:
        """The parameter of each output."""
        return 0.0


class MeanAbsoluteError(_Elementwise):
    """Absolute error ``|a - t|``, the mean over outputs: predicts medians, and is robust to outliers."""

    name = "mean_absolute_error"
    _operation = "absolute_error"


class Huber(_Elementwise):
    """Huber's loss (1964), the mean over outputs: squared near the target, linear beyond.

    ``d^2 / 2`` for errors ``|d| <= delta``, otherwise ``delta (|d| - delta / 2)``.

    Parameters
    ----------
    delta : float
        The size of an error from which it counts linearly, in the units of the targets; above 0.
    """

    name = "huber"
    _operation = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = above_zero("delta", delta)

    def _parameters(self) -> float:
        return self.delta


class Quantile(_Elementwise):
    """The quantile or pinball loss (Koenker and Bassett 1978), the mean over levels: predicts quantiles of one target.

    The network has one output for each level, and `y` one number for each row. With ``d = a - t``, the loss of an
    output of level q is ``(1 - q) d`` above the target and ``-q d`` below. Quantiles of different levels may cross.

    Parameters
    ----------
    levels : float or sequence of float
        Between 0 and 1, in increasing order, such as ``[0.05, 0.5, 0.95]``.
    """

    name = "quantile"
    _operation = "quantile"
    shares_target = True

    def __init__(self, levels: float | Sequence[float]) -> None:
        given = levels if isinstance(levels, list | tuple | np.ndarray) else [levels]
        self.levels = tuple(number("a level", level) for level in given)
        above = (0.0, *self.levels)
        if not self.levels or self.levels[-1] >= 1 or any(b <= a for a, b in zip(above, self.levels, strict=False)):
            raise InvalidInputError(
                f"levels must be between 0 and 1, in increasing order, such as [0.05, 0.5, 0.95], received "
                f"{shown(levels)}"
            )

    @property
    def compared_output(self) -> int | None:  # type: ignore[override]
        """The output of the median; None without the level 0.5."""
        return self.levels.index(0.5) if 0.5 in self.levels else None

    def _parameters(self) -> Sequence[float]:
        return self.levels

    def check_outputs(self, outputs: int) -> None:
        if outputs != len(self.levels):
            raise InvalidInputError(
                f"{self!r} needs one output for each of {len(self.levels)} levels, but the network has {outputs}; end "
                f"it with Dense({len(self.levels)})"
            )


class LogCosh(_Elementwise):
    """``log(cosh(a - t))``, the mean over outputs: like half the squared error near the target, and linear far away."""

    name = "log_cosh"
    _operation = "log_cosh"


class Poisson(_Elementwise):
    """Poisson's negative log-likelihood of counts, without its constant, the mean over outputs: ``exp(a) - t a``.

    The outputs are logarithms of rates; predictions are the rates ``exp(a)``. The last layer has no activation.
    Targets must not be negative.
    """

    name = "poisson"
    output_activation = "exponential"
    _operation = "poisson"

    def check_targets(self, values: Any) -> None:
        if values.min() < 0:
            raise InvalidInputError(
                f"targets of {self.name} are counts or rates, at least 0, received {values.min():g}; for numbers of "
                "any sign use loss='mean_squared_error'"
            )


class Focal(_Elementwise):
    """The focal loss of Lin et al. (2017): cross-entropy in which rows that are easy count less.

    ``-(1 - p)^gamma log(p)``, where p is the predicted probability of the true class. With gamma of 0 it is the
    cross-entropy. With probabilities as targets of softmax, p is ``exp(-cross-entropy)``.

    Parameters
    ----------
    gamma : float
        At least 0.
    output_activation : {"softmax", "sigmoid"}
        "softmax" for one class of several, "sigmoid" for yes-or-no outputs. The last layer has no activation.
    """

    name = "focal"
    output_activation = "softmax"
    targets: TargetKind = "exclusive"
    _operation = "sigmoid_focal"

    def __init__(self, gamma: float = 2.0, output_activation: str = "softmax") -> None:
        self.gamma = number("gamma", gamma, low=0)
        if not isinstance(output_activation, str) or output_activation not in ("softmax", "sigmoid"):
            raise UnknownNameError("output_activation", output_activation, ("softmax", "sigmoid"))
        self.output_activation = output_activation
        self.targets = "exclusive" if output_activation == "softmax" else "independent"

    def record(
        self, step: Any, outputs: Any, targets: Any, weights: Any | None, gradient: Any, row_losses: Any
    ) -> None:
        if self.output_activation == "sigmoid":
            super().record(step, outputs, targets, weights, gradient, row_losses)
            return
        step.record("softmax_cross_entropy", outputs, targets, None, gradient, row_losses)
        step.record("focal_rows", weights, self.gamma, gradient, row_losses)

    def _parameters(self) -> float:
        return self.gamma

    def _for_one_output(self) -> str:
        return f"loss=nn.losses.Focal({self.gamma:g}, 'sigmoid')"


class _Smoothed(Loss):
    """A cross-entropy with smoothed labels; see :func:`smoothed`."""

    def __init__(self, loss: Loss, smoothing: float) -> None:
        self.loss, self.smoothing = loss, smoothing
        self.name, self.output_activation, self.targets = loss.name, loss.output_activation, loss.targets

    def record(
        self, step: Any, outputs: Any, targets: Any, weights: Any | None, gradient: Any, row_losses: Any
    ) -> None:
        softened = step.like(outputs)
        uniform = 1 / outputs.shape[1] if self.targets == "exclusive" else 0.5
        step.record("smooth_labels", targets, self.smoothing, uniform, softened)
        self.loss.record(step, outputs, softened, weights, gradient, row_losses)


def smoothed(loss: Loss, smoothing: float) -> Loss:
    """A cross-entropy with smoothed labels (Szegedy et al. 2016), for training only.

    Parameters
    ----------
    loss : Loss
    smoothing : float
        0 <= smoothing < 1. This fraction of each target becomes ``1 / classes`` for softmax, and 1/2 for sigmoid.

    Raises
    ------
    InvalidInputError
        It is out of range, or the loss is no cross-entropy.
    """
    fraction = number("label_smoothing", smoothing, low=0, high=1, below=True)
    if fraction == 0:
        return loss
    if not isinstance(loss, SoftmaxCrossEntropy | SigmoidCrossEntropy):
        raise InvalidInputError(
            f"label_smoothing is for the cross-entropies, 'softmax_cross_entropy' and 'sigmoid_cross_entropy', "
            f"received {smoothing!r} with loss {loss.text}; leave it out"
        )
    return _Smoothed(loss, fraction)
