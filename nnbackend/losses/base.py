"""What every loss has: the operations that compute it, what targets it takes, and what its predictions are."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from nnbackend.errors import InvalidInputError
from nnbackend.support.attributes import Guarded, constructor_arguments

__all__ = ["OUTPUT_ACTIVATIONS", "TARGET_KINDS", "Loss", "TargetKind"]

TargetKind = Literal["exclusive", "independent", "numbers"]
#: The activations that a loss may apply to outputs.
OUTPUT_ACTIVATIONS = ("exponential", "identity", "sigmoid", "softmax", "softplus", "tanh")
TARGET_KINDS = ("exclusive", "independent", "numbers")


class Loss(Guarded):
    """Base class of losses. Two losses are equal if they have the same class and arguments.

    A loss of your own sets the attributes and overrides `record`, or is a :class:`Custom`, which consists of two
    functions.

    Attributes
    ----------
    name : str
        Its name in files and messages; by default that of the class.
    output_activation : str
        What turns the network's outputs into predictions: "identity", "sigmoid", "softmax", "exponential", "softplus"
        or "tanh". The loss applies it itself.
    targets : {"exclusive", "independent", "numbers"}
        What targets mean: probabilities of mutually exclusive classes, an independent probability for each output, or
        any numbers.
    shares_target : bool
        Whether all outputs of the network predict the same number, so that `y` has one for each row.
    compared_output : int or None
        If they do: the output that metrics such as "mae" compare with the target. None if there is none such.
    """

    name: str = "Loss"
    output_activation: str = "identity"
    targets: TargetKind = "numbers"
    shares_target: ClassVar[bool] = False
    compared_output: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def record(
        self, step: Any, outputs: Any, targets: Any, weights: Any | None, gradient: Any, row_losses: Any
    ) -> None:
        """Record the calls that compute the loss of each row of a minibatch, and its gradient.

        Parameters
        ----------
        step : Recorder
            Records operations with ``step.record("operation", ...)``, functions of your own with ``step.call(function,
            *arrays)``, and has buffers, as :class:`nnbackend.LayerStep`; ``step.constant(values)`` is an array of
            constants.
        outputs : (n, outputs) array
            The outputs of the network, without the output activation.
        targets : (n,) int32 labels, or (n, outputs) array
        weights : (n,) array or None
            Weights w of the rows.
        gradient : (n, outputs) array, written
            ``w_i / n`` times the derivative of the loss of row i.
        row_losses : (2, n) array, written
            ``w_i`` times the loss of each row; and 1 for a correct prediction, 0 for a wrong one, or the share of
            outputs that are correct.
        """
        step.record(self.name, outputs, targets, weights, gradient, row_losses)

    @property
    def takes_labels(self) -> bool:
        """Whether `record` takes class indices, and not only one-hot rows."""
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
                f"{self.output_activation} over a single output is always 1; use {self._for_one_output()}, or "
                "Dense(2) as last layer"
            )

    def _for_one_output(self) -> str:
        return "loss='sigmoid_cross_entropy'"

    def check_targets(self, values: Any) -> None:
        """Reject targets, an array of finite numbers, for which the loss is meaningless.

        Raises
        ------
        InvalidInputError
        """

    def config(self) -> str | dict[str, Any]:
        """What files contain, as plain JSON: the name, and the arguments if there are any.

        The functions of a user's own loss are not stored, only what its predictions are.
        """
        if self._ours:
            arguments = constructor_arguments(self)
            arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
            return {"name": self.name, **arguments} if arguments else self.name
        return {"name": self.name, "output_activation": self.output_activation, "targets": self.targets}

    @property
    def text(self) -> str:
        """Its name, and its arguments if there are any."""
        return self.name if self._ours and not constructor_arguments(self) else repr(self)

    @property
    def _ours(self) -> bool:
        """Whether files need no more than its name and arguments."""
        return type(self).__module__.startswith(__package__ + ".")

    def _key(self) -> tuple[Any, ...]:
        return type(self), tuple(constructor_arguments(self).items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return super().__repr__() if constructor_arguments(self) else f"<Loss {self.name!r}>"
