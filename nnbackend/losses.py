"""Losses: which operation computes one, what targets it takes, and what its predictions are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nnbackend.errors import InvalidInputError, UnknownNameError

__all__ = ["LOSSES", "Loss", "get_loss"]


@dataclass(eq=False, repr=False)
class Loss:
    """A loss by name.

    Attributes
    ----------
    name : str
        Also the backend operation that computes value, gradient and correct.
    output_activation : str
        What turns the network's outputs into predictions; the loss applies it itself.
    targets : {"exclusive", "independent", "numbers"}
        What targets mean: probabilities of mutually exclusive classes, an independent probability for each output, or
        any numbers.
    """

    name: str
    output_activation: str
    targets: Literal["exclusive", "independent", "numbers"]

    def __repr__(self) -> str:
        return f"<Loss {self.name!r}>"

    @property
    def takes_labels(self) -> bool:
        """Whether the operation accepts class indices, and not only one-hot rows."""
        return self.targets == "exclusive"

    @property
    def takes_probabilities(self) -> bool:
        """Whether target values must be in [0, 1]."""
        return self.targets != "numbers"

    def takes_several_labels(self, outputs: int) -> bool:
        """Whether a row may have any number of labels: each of several outputs is a probability of its own."""
        return self.targets == "independent" and outputs > 1

    def accuracy_name(self, outputs: int, have_classes: bool) -> str | None:
        """The name of the metric for correct predictions.

        Parameters
        ----------
        outputs : int
            The network's.
        have_classes : bool
            Whether each row's targets name one class.

        Returns
        -------
        str or None
            "accuracy" if each row is right or wrong, "binary_accuracy" if each of several outputs is, None if targets
            are numbers.
        """
        if self.takes_several_labels(outputs) and not have_classes:
            return "binary_accuracy"
        return "accuracy" if have_classes or self.takes_probabilities else None

    def check_outputs(self, outputs: int) -> None:
        """Reject a number of outputs for which the loss is meaningless.

        Raises
        ------
        InvalidInputError
        """
        if self.targets == "exclusive" and outputs == 1:
            raise InvalidInputError(
                f"{self.output_activation} over a single output is always 1; use loss='sigmoid_cross_entropy', or "
                "Dense(2) as last layer"
            )


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("softmax_cross_entropy", "softmax", "exclusive"),
        Loss("sigmoid_cross_entropy", "sigmoid", "independent"),
        Loss("mean_squared_error", "identity", "numbers"),
    )
}


def get_loss(name: str | Loss) -> Loss:
    """The loss of that name; UnknownNameError if there is none."""
    if isinstance(name, Loss):
        return name
    if not isinstance(name, str) or name not in LOSSES:
        raise UnknownNameError("loss", name, LOSSES)
    return LOSSES[name]


def __getattr__(name: str) -> Any:
    """Names that have moved to another module."""
    if name not in ("Targets", "combine_weights", "row_weights"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib
    import warnings

    moved = "nnbackend.data.targets" if name == "Targets" else "nnbackend.data.weights"
    warnings.warn(f"nnbackend.losses.{name} is now {moved}.{name}", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(moved), name)


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
