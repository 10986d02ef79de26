"""Losses of the user: two functions of arrays, and what remains of a loss of one's own in a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.losses.base import OUTPUT_ACTIVATIONS, TARGET_KINDS, Loss, TargetKind
from nnbackend.support.checks import text

__all__ = ["Custom", "StoredLoss"]


class Custom(Loss):
    """A loss of two functions of arrays, which works on every backend.

    The functions are called in every step with arrays of the backend: of NumPy on NumPy and Numba, of CuPy on a GPU,
    which NumPy's functions also take. On Numba and CuPy they run from Python between compiled or captured parts of the
    step, which `summary` and the log say. :func:`nnbackend.testing.check_gradients` compares the two.

    Parameters
    ----------
    value : callable
        ``value(outputs, targets)`` returns the loss of each row, (n,), from (n, outputs) outputs without the output
        activation, and targets, (n,) int32 labels if `targets` is "exclusive" and `y` has labels, otherwise (n,
        outputs). It must not change its arguments.
    gradient : callable
        ``gradient(outputs, targets)`` returns the derivative of each row's loss by its outputs, (n, outputs).
    name : str, optional
        Default: the name of `value`.
    output_activation, targets : str
        As of :class:`Loss`.

    Raises
    ------
    InvalidInputError, UnknownNameError
        An argument is not a function, or unknown; in training: a function returns another shape.
    """

    def __init__(
        self,
        value: Callable[[Any, Any], Any],
        gradient: Callable[[Any, Any], Any],
        name: str | None = None,
        output_activation: str = "identity",
        targets: TargetKind = "numbers",
    ) -> None:
        for what, function in (("value", value), ("gradient", gradient)):
            if not callable(function):
                raise InvalidInputError(f"{what} must be a function of (outputs, targets), received {shown(function)}")
        self.value, self.gradient = value, gradient
        self.name = getattr(value, "__name__", type(value).__name__) if name is None else text("name", name)
        if not isinstance(output_activation, str) or output_activation not in OUTPUT_ACTIVATIONS:
            raise UnknownNameError("output_activation", output_activation, OUTPUT_ACTIVATIONS)
        if not isinstance(targets, str) or targets not in TARGET_KINDS:
            raise UnknownNameError("targets", targets, TARGET_KINDS)
        self.output_activation, self.targets = output_activation, targets

    def record(
        self, step: Any, outputs: Any, targets: Any, weights: Any | None, gradient: Any, row_losses: Any
    ) -> None:
        step.call(self, outputs, targets, weights, gradient, row_losses)

    @property
    def __name__(self) -> str:
        """For messages of executors about the call."""
        return self.name

    def __call__(
        self, backend: Any, outputs: Any, targets: Any, weights: Any | None, gradient: Any, row_losses: Any
    ) -> None:
        """Compute the loss of each row and its gradient; called in every step."""
        n = outputs.shape[0]
        values, slopes = self.value(outputs, targets), self.gradient(outputs, targets)
        for what, found, wanted in (("value", values, (n,)), ("gradient", slopes, tuple(outputs.shape))):
            if tuple(getattr(found, "shape", ())) != wanted:
                raise InvalidInputError(
                    f"{what} of the loss {self.name} must return an array of shape {wanted}, received "
                    f"{tuple(getattr(found, 'shape', ())) or shown(found)}"
                )
        if weights is None:
            row_losses[0, ...] = values
            slopes = slopes / n
        else:
            row_losses[0, ...] = values * weights
            slopes = slopes * (weights / n)[:, None]
        if self.targets == "independent":
            row_losses[1, ...] = ((outputs > 0) == (targets > 0.5)).mean(axis=1)
        else:
            row_losses[1, ...] = outputs.argmax(axis=1) == (targets if targets.ndim == 1 else targets.argmax(axis=1))
        gradient[...] = slopes

    @property
    def _ours(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"Custom({self.name})"


class StoredLoss(Loss):
    """A user's own loss as a file describes it: it determines predictions, and computes nothing."""

    def __init__(self, name: str, output_activation: str, targets: TargetKind) -> None:
        self.name, self.output_activation, self.targets = name, output_activation, targets

    @property
    def _ours(self) -> bool:
        return False

    def record(
        self, step: Any, outputs: Any, targets: Any, weights: Any | None, gradient: Any, row_losses: Any
    ) -> None:
        raise InvalidInputError(
            f"the network was trained with a loss of your own, {self.name!r}, which files do not contain; give it "
            "again: loss=..."
        )
