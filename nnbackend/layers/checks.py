"""Checks that several layers share."""

from __future__ import annotations

from typing import Any

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.support.checks import number

__all__ = ["activation_name", "activation_parameter", "one_dimensional"]


def activation_name(name: Any) -> str:
    """A known activation's name."""
    if name is None:
        return "identity"
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return name


def activation_parameter(activation: str, alpha: float | None) -> float:
    """The activation's parameter, its default where none is given.

    It must not be negative: the gradients of leaky ReLU and ELU are computed from the output, which tells the two
    branches apart only then.
    """
    default = ACTIVATIONS[activation].alpha
    if alpha is None:
        return default
    if default == 0:
        raise InvalidInputError(f"activation {activation!r} has no parameter, received alpha={shown(alpha)}")
    return number("alpha", alpha, low=0)


def one_dimensional(layer: str, input_shape: tuple[int, ...]) -> int:
    """The number of features, where a layer takes flat samples only."""
    if len(input_shape) != 1:
        raise InvalidInputError(f"{layer} takes flat samples, received shape {input_shape}; put Flatten() before it")
    return input_shape[0]
