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
    activation : str
        Of the hidden layers.
    dropout : float
        Fraction of each hidden layer's outputs that is dropped in training.
    loss : str
        "softmax_cross_entropy", "sigmoid_cross_entropy" or "mean_squared_error".
    dtype : str
    """

    units: tuple[int, ...]
    activation: str
    dropout: float
    loss: str
    dtype: str

    @property
    def outputs(self) -> int:
        return self.units[-1]

    def layers(self, l2: float = 0.0) -> list[Layer]:
        """The layers, with an L2 penalty on their weights."""
        *hidden, last = self.units[1:]
        layers: list[Layer] = []
        for units in hidden:
            layers.append(Dense(units, self.activation, weight_initializer="zeros", l2=l2))
            if self.dropout:
                layers.append(Dropout(self.dropout))
        return [*layers, Dense(last, weight_initializer="zeros", l2=l2)]

    def initial_weights(self, generator: np.random.RandomState) -> Weights:
        """Uniform weights and biases after Glorot and Bengio (2010), drawn in the same order as in scikit-learn."""
        factor = 2 if self.activation == "sigmoid" else 6
        coefs, intercepts = [], []
        for inputs, outputs in pairwise(self.units):
            limit = math.sqrt(factor / (inputs + outputs))
            coefs.append(generator.uniform(-limit, limit, (inputs, outputs)).astype(self.dtype, copy=False))
            intercepts.append(generator.uniform(-limit, limit, outputs).astype(self.dtype, copy=False))
        return coefs, intercepts

    def network(self, backend: str | Backend, seed: int) -> Network:
        """A network with weights of zero; `seed` is the seed of the dropout masks."""
        network = Network(self.layers(), self.units[0], backend, seed, self.dtype)
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
