"""The architecture of a fitted network: everything except its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nnbackend.backends.contract import Backend, HostArray
from nnbackend.layers import Dense, Dropout, Layer
from nnbackend.network import Network

__all__ = ["Architecture", "Weights"]

#: `coefs_` and `intercepts_`: an (inputs, outputs) and an (outputs,) array for each layer.
Weights = tuple[list[HostArray], list[HostArray]]


@dataclass(frozen=True)
class Architecture:
    """A stack of dense layers.

    Attributes
    ----------
    units : tuple of int
        Features, the hidden layers' units, outputs.
    activation : str or tuple of str
        Of the hidden layers, or of each.
    dropout : float or tuple of float
        Fraction of the hidden layers' outputs that is dropped in training, or of each layer's.
    loss : str
        "softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error" or "poisson".
    dtype : str
    """

    units: tuple[int, ...]
    activation: str | tuple[str, ...]
    dropout: float | tuple[float, ...]
    loss: str
    dtype: str

    @property
    def outputs(self) -> int:
        return self.units[-1]

    def layers(self, l2: float = 0.0) -> list[Layer]:
        """The layers, with an L2 penalty on their weights."""
        *hidden, last = self.units[1:]
        layers: list[Layer] = []
        settings = zip(hidden, _each(self.activation, len(hidden)), _each(self.dropout, len(hidden)), strict=True)
        for units, activation, dropout in settings:
            layers.append(Dense(units, activation, weight_initializer="zeros", l2=l2))
            if dropout:
                layers.append(Dropout(dropout))
        return [*layers, Dense(last, weight_initializer="zeros", l2=l2)]

    def initial_weights(self, generator: np.random.RandomState) -> Weights:
        """Uniform weights and biases after Glorot and Bengio (2010), drawn in the same order as in scikit-learn.

        As there, the last layer is drawn with the factor of the activation before it.
        """
        activations = _each(self.activation, len(self.units) - 2)
        # Without hidden layers, scikit-learn uses the factor of the activation that no layer has.
        last = activations[-1] if activations else self.activation
        coefs, intercepts = [], []
        for (inputs, outputs), activation in zip(pairwise(self.units), (*activations, last), strict=True):
            limit = math.sqrt((2 if activation == "sigmoid" else 6) / (inputs + outputs))
            coefs.append(generator.uniform(-limit, limit, (inputs, outputs)).astype(self.dtype, copy=False))
            intercepts.append(generator.uniform(-limit, limit, outputs).astype(self.dtype, copy=False))
        return coefs, intercepts

    def network(self, backend: str | Backend, seed: int) -> Network:
        """A network with weights of zero; `seed` is the seed of the dropout masks."""
        # scikit-learn has checked the rows and converted them: bytes are numbers, not pixels.
        network = Network(self.layers(), self.units[0], backend, seed, self.dtype, input_scale=1.0)
        network.set_loss(self.loss)
        return network

    def named(self, weights: Weights) -> dict[str, Any]:
        """Weights by their names in the network."""
        coefs, intercepts = weights
        named = {}
        for place, coef, intercept in zip(self._places(), coefs, intercepts, strict=True):
            named[f"layers.{place}.weight"], named[f"layers.{place}.bias"] = coef, intercept
        return named

    def unnamed(self, named: dict[str, HostArray]) -> Weights:
        """The inverse of `named`."""
        prefixes = [f"layers.{place}" for place in self._places()]
        return [named[f"{prefix}.weight"] for prefix in prefixes], [named[f"{prefix}.bias"] for prefix in prefixes]

    def _places(self) -> Sequence[int]:
        """The positions of the dense layers in the list of layers."""
        return [place for place, layer in enumerate(self.layers()) if isinstance(layer, Dense)]


def _each(value: Any, layers: int) -> tuple[Any, ...]:
    """The value of each hidden layer."""
    return value if isinstance(value, tuple) else (value,) * layers
