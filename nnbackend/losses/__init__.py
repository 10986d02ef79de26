"""Losses: which operations compute one, what targets it takes, and what its predictions are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.losses.base import OUTPUT_ACTIVATIONS, TARGET_KINDS, Loss
from nnbackend.losses.custom import Custom, StoredLoss
from nnbackend.losses.named import (
    Focal,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    Quantile,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
    smoothed,
)
from nnbackend.support.checks import text

__all__ = [
    "ALIASES",
    "LOSSES",
    "Custom",
    "Focal",
    "Huber",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Poisson",
    "Quantile",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "get_loss",
    "loss_from_config",
    "smoothed",
]

#: The classes of this package by name.
LOSS_CLASSES: dict[str, type[Any]] = {
    each.name: each
    for each in (
        SoftmaxCrossEntropy, SigmoidCrossEntropy, MeanSquaredError, MeanAbsoluteError, Huber, Quantile, LogCosh,
        Poisson, Focal,
    )
}  # fmt: skip

#: Losses by name, with their default arguments.
LOSSES: dict[str, Loss] = {name: made() for name, made in LOSS_CLASSES.items() if made is not Quantile}

#: Other names, as in Keras, scikit-learn and PyTorch.
ALIASES: dict[str, str] = {
    "mse": "mean_squared_error",
    "squared_error": "mean_squared_error",
    "mae": "mean_absolute_error",
    "absolute_error": "mean_absolute_error",
    "bce": "sigmoid_cross_entropy",
    "binary_crossentropy": "sigmoid_cross_entropy",
    "cross_entropy": "softmax_cross_entropy",
    "cce": "softmax_cross_entropy",
    "categorical_crossentropy": "softmax_cross_entropy",
    "sparse_categorical_crossentropy": "softmax_cross_entropy",
    "huber_loss": "huber",
    "logcosh": "log_cosh",
}


def get_loss(name: Any) -> Loss:
    """The loss of that name or alias; UnknownNameError if there is none."""
    if isinstance(name, Loss):
        return name
    if isinstance(name, type) and issubclass(name, Loss):
        raise InvalidInputError(
            f"loss must be an object, received the class {name.__name__}; make one: {name.__name__}()"
        )
    if name == "quantile":
        raise InvalidInputError("the quantile loss needs levels: loss=nn.losses.Quantile([0.05, 0.5, 0.95])")
    known = ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(known, str) and callable(known):
        raise InvalidInputError(
            f"loss must be a name or an object of nn.losses, received the function {shown(name)}; to make a loss of "
            "your own, give its value and its gradient: nn.losses.Custom(value, gradient)"
        )
    if not isinstance(known, str) or known not in LOSSES:
        valid = [*LOSSES, Quantile.name]
        # Imported here because only this error needs it.
        import difflib

        # Other names are suggested, but not listed.
        near = isinstance(name, str) and difflib.get_close_matches(name.lower(), [*valid, *ALIASES], cutoff=0.5)
        raise UnknownNameError("loss", name, [*valid, *ALIASES] if near else valid)
    return LOSSES[known]


def loss_from_config(config: Any) -> Loss:
    """The loss that :meth:`Loss.config` describes.

    Raises
    ------
    InvalidInputError, UnknownNameError
        It describes none.
    """
    if not isinstance(config, Mapping):
        return get_loss(config)
    arguments = {key: value for key, value in config.items() if key != "name"}
    name = text("the name of a loss", config.get("name"))
    if set(arguments) == {"output_activation", "targets"}:
        for key, valid in (("output_activation", OUTPUT_ACTIVATIONS), ("targets", TARGET_KINDS)):
            if not isinstance(arguments[key], str) or arguments[key] not in valid:
                raise UnknownNameError(key, arguments[key], valid)
        return StoredLoss(name, **arguments)
    if name not in LOSS_CLASSES:
        raise UnknownNameError("loss", name, LOSS_CLASSES)
    try:
        made: Loss = LOSS_CLASSES[name](**arguments)
    except TypeError as error:
        raise InvalidInputError(f"a configuration of the loss {name} is wrong: {error}") from None
    return made


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
