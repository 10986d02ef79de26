"""The JSON description of a network without its weights, used by `Network.config`, model files and copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnbackend.data.scale import Inputs, input_factor
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.layers import Layer, layers_config, layers_from_config
from nnbackend.losses import Loss, loss_from_config
from nnbackend.support.checks import count, real_dtype, sample_shape, seed_number

__all__ = ["Description", "config_of", "epochs_count", "parse_config", "steps_count"]

#: Optional keys of a configuration, with the values of a new, untrained network.
_DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "dtype": "float32",
    "input_scale": None,
    "inputs": None,
    "loss": None,
    "multilabel": False,
    "steps_trained": 0,
    "epochs_trained": 0,
}
_REQUIRED = ("layers", "input_shape")


@dataclass(eq=False, repr=False)
class Description:
    """The checked contents of a configuration, as `Network` accepts them."""

    layers: list[Layer]
    input_shape: tuple[int, ...]
    seed: int
    dtype: np.dtype[Any]
    input_scale: float | None
    inputs: Inputs | None
    scaled_by_dtype: bool
    loss: Loss | None
    multilabel: bool
    steps_trained: int
    epochs_trained: int


def config_of(network: Any) -> dict[str, Any]:
    """The configuration of a network, for `parse_config`."""
    inputs: dict[str, Any] = {}
    if network.trained_with is not None:
        inputs = {"inputs": asdict(network.trained_with)}
    elif network.input_scale is None and not network.scaled_by_dtype:
        # Older versions wrote no such entry: without it, an open scale means theirs.
        inputs = {"inputs": None}
    config = {
        **inputs,
        "layers": layers_config(network.layers),
        "input_shape": list(network.input_shape),
        "seed": network.seed,
        "dtype": network.dtype.name,
        "input_scale": network.input_scale,
        "loss": None if network.loss is None else network.loss.config(),
        "steps_trained": network.steps_trained,
        "epochs_trained": network.epochs_trained,
    }
    # Only if it is True, so that earlier releases can read the files of other networks.
    return {**config, "multilabel": True} if network.multilabel else config


def parse_config(config: Mapping[str, Any], custom_layers: Sequence[type[Layer]] = ()) -> Description:
    """Parse and check a configuration, which may come from an untrusted file.

    Parameters
    ----------
    config : dict
        ``"layers"`` and ``"input_shape"`` are required.
    custom_layers : sequence of Layer subclasses
        User-defined layers that the configuration may name.

    Raises
    ------
    InvalidInputError
        Something is missing, unknown, of the wrong type or out of range.
    """
    if not isinstance(config, Mapping):
        raise InvalidInputError(
            f"a network's configuration must be a dict, as config() returns it, received {type(config).__name__}"
        )
    if "tabular" in config:
        raise InvalidInputError(
            "it is an estimator for tables; read it with nnbackend.TabularClassifier.load or "
            "nnbackend.TabularRegressor.load"
        )
    if "members" in config:
        raise InvalidInputError("it is an ensemble of several networks; read it with nnbackend.Ensemble.load")
    for key in config:
        if key not in _REQUIRED and key not in _DEFAULTS:
            raise UnknownNameError("key in a network's configuration", key, (*_REQUIRED, *_DEFAULTS))
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise InvalidInputError(f"a network's configuration must have {' and '.join(map(repr, missing))}")
    values = {**_DEFAULTS, **config}
    multilabel = values["multilabel"]
    if not isinstance(multilabel, bool):
        raise InvalidInputError(f"multilabel must be True or False, received {shown(multilabel)}")
    scale, loss, dtype = values["input_scale"], values["loss"], values["dtype"]
    if not isinstance(dtype, str):  # NumPy converts nearly anything to a dtype.
        raise InvalidInputError(f"dtype must be 'float32' or 'float64', received {shown(dtype)}")
    checked, inputs = real_dtype(dtype), Inputs.from_config(values["inputs"])
    if inputs is not None and scale is None:
        raise InvalidInputError("a network with inputs must have an input_scale, received None")
    return Description(
        layers_from_config(values["layers"], custom_layers),
        sample_shape(values["input_shape"]),
        seed_number(values["seed"]),
        checked,
        None if scale is None else input_factor(scale, checked),
        inputs,
        # Older versions wrote every entry but "inputs". If they left the scale open, the dtype of the inputs decided it
        # in every call: uint8 was divided by 255, everything else was left alone. Their weights were trained so.
        scale is None and "input_scale" in config and "inputs" not in config,
        None if loss is None else loss_from_config(loss),
        multilabel,
        steps_count(values["steps_trained"]),
        epochs_count(values["epochs_trained"]),
    )


def steps_count(value: Any) -> int:
    """Check a number of training steps; the limit leaves room for more in the 64 bits of the random key."""
    return _counted("steps_trained", value, 2**48)


def epochs_count(value: Any) -> int:
    """Check a number of training epochs, which are numbered with 32 bits."""
    return _counted("epochs_trained", value, 2**32)


def _counted(name: str, value: Any, limit: int) -> int:
    if count(name, value) >= limit:
        raise InvalidInputError(f"{name} must be below {limit:,}, received {shown(value)}")
    return int(value)
