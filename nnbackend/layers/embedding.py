"""Embeddings: of categories as trained vectors, and of numbers as combinations of waves."""

from __future__ import annotations

import math
from typing import Any

from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError
from nnbackend.initializers import Initializer, Normal, Uniform, get_initializer
from nnbackend.layers.base import Layer, LayerStep, Parameter, one_dimensional
from nnbackend.support.checks import number, positive_integer

__all__ = ["Embedding", "PeriodicEmbedding"]


class Embedding(Layer):
    """Replace categories, given by their numbers, by trained vectors.

    The last `columns` columns of a sample are categories, 0 to ``categories - 1``; each column has vectors of its own.
    The columns before them are passed on unchanged, so that a table may have numbers first and categories after them. A
    code outside this range, such as -1 for a missing category, has a vector of zeros that is not trained. The fraction
    of a code is ignored.

    Parameters
    ----------
    categories : int
        The number of categories; if columns have different numbers, the largest.
    units : int
        Length of a vector.
    columns : int
        How many of the last columns are categories.
    initializer : str, Initializer or (columns, categories, units) array
        Of the vectors.
    trainable : bool
        False freezes the vectors.
    learning_rate_factor : float
        Multiplies the optimiser's learning rate for the vectors; above 0.

    Raises
    ------
    InvalidInputError
        A value is out of range. When the network is built: samples are not flat, or have fewer columns. When it is
        trained: a layer before this one has something to learn, which the codes have no gradient for.

    Notes
    -----
    float32 holds integers exactly up to 16,777,216. The gradient of a vector is the sum over the rows with its
    category, in the order of the rows, so that training has the same bits every time. The optimiser updates all vectors
    in every step, also those of categories that a batch does not contain.
    """

    def __init__(
        self,
        categories: int,
        units: int = 8,
        *,
        columns: int = 1,
        initializer: Any = "normal",
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
    ) -> None:
        super().__init__(trainable=trainable, learning_rate_factor=learning_rate_factor)
        self.categories = positive_integer("categories", categories)
        self.units = positive_integer("units", units)
        self.columns = positive_integer("columns", columns)
        self.initializer: Initializer = get_initializer(initializer)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        features = _at_least("Embedding", input_shape, self.columns)
        return (features + self.columns * (self.units - 1),)

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        return (Parameter("vectors", (self.columns, self.categories, self.units), self.initializer),)

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        out = step.buffer(*self.output_shape(step.input_shape))
        step.record("embed_columns", x, step.parameter("vectors"), out)
        return out, x

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        if need_input_gradient:
            raise InvalidInputError(
                f"{self!r} stands after a layer that learns, but categories have no gradient; put it before all layers "
                "that learn"
            )
        if step.trainable:
            step.record("embed_columns_gradient", saved, upstream, step.gradient("vectors"))
        return upstream

    def config(self) -> dict[str, Any]:
        return {
            "categories": self.categories,
            "units": self.units,
            "columns": self.columns,
            "initializer": self.initializer.config(),
        }


class PeriodicEmbedding(Layer):
    """Embed numbers as themselves and combinations of learned waves, which lets a network learn steep functions.

    Each of the first `columns` columns becomes ``x, bias + weight^T cos(2 pi frequencies x + phases)``, with parameters
    of its own; the other columns follow unchanged. This is the embedding PBLD ("periodic, bias, linear, DenseNet") of
    Holzmueller et al. 2024 [1]_, after Gorishniy et al. 2022 [2]_.

    Parameters
    ----------
    columns : int, optional
        How many of the first columns are embedded. Default: all.
    units : int
        Features that a column becomes, the number itself among them; at least 2.
    waves : int
        Of each column.
    deviation : float
        Standard deviation of the initial frequencies, in oscillations per unit of x; above 0.
    trainable : bool
        False freezes all parameters.
    learning_rate_factor : float
        Multiplies the optimiser's learning rate for the parameters; above 0.

    Raises
    ------
    InvalidInputError
        A value is out of range. When the network is built: samples are not flat, or have fewer columns.

    Notes
    -----
    Initial frequencies are normal, phases uniform on [-pi, pi), and weights and biases uniform on
    ``[-1, 1) / sqrt(waves)``. Scale numbers to magnitudes of about 1 before.

    References
    ----------
    .. [1] D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees
       on Tabular Data", NeurIPS 2024, https://arxiv.org/abs/2407.04491
    .. [2] Y. Gorishniy, I. Rubachev and A. Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning",
       NeurIPS 2022, https://arxiv.org/abs/2203.05556
    """

    def __init__(
        self,
        columns: int | None = None,
        *,
        units: int = 4,
        waves: int = 16,
        deviation: float = 0.1,
        trainable: bool = True,
        learning_rate_factor: float = 1.0,
    ) -> None:
        super().__init__(trainable=trainable, learning_rate_factor=learning_rate_factor)
        self.columns = None if columns is None else positive_integer("columns", columns)
        self.units = positive_integer("units", units)
        if self.units < 2:
            raise InvalidInputError("units counts the number itself and combinations of waves: at least 2, received 1")
        self.waves = positive_integer("waves", waves)
        self.deviation = number("deviation", deviation, low=0)

    def _embedded(self, input_shape: tuple[int, ...]) -> int:
        features = _at_least("PeriodicEmbedding", input_shape, self.columns or 1)
        return features if self.columns is None else self.columns

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (input_shape[0] + self._embedded(input_shape) * (self.units - 1),)

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        embedded, combined = self._embedded(input_shape), self.units - 1
        linear = Uniform(-1 / math.sqrt(self.waves), 1 / math.sqrt(self.waves))
        return (
            Parameter("frequencies", (embedded, self.waves), Normal(0.0, self.deviation)),
            Parameter("phases", (embedded, self.waves), Uniform(-math.pi, math.pi)),
            Parameter("weight", (embedded, self.waves, combined), linear),
            Parameter("bias", (embedded, combined), linear),
        )

    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        waves = [None, None]
        if step.training:
            terms = self._embedded(step.input_shape) * self.waves
            waves = [step.buffer(terms), step.buffer(terms)]
        out = step.buffer(*self.output_shape(step.input_shape))
        parameters = [step.parameter(name) for name in ("frequencies", "phases", "weight", "bias")]
        step.record("periodic_columns", x, *parameters, *waves, out)
        return out, (x, *waves)

    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        x, cosines, sines = saved
        weight = step.parameter("weight")
        downstream = upstream
        if need_input_gradient:
            downstream = step.like(x)
            step.record(
                "periodic_columns_input_gradient", sines, upstream, step.parameter("frequencies"), weight, downstream
            )
        if step.trainable:
            gradients = [step.gradient(name) for name in ("frequencies", "phases", "weight", "bias")]
            step.record("periodic_columns_gradient", x, cosines, sines, upstream, weight, *gradients)
        return downstream

    def config(self) -> dict[str, Any]:
        return {
            "columns": self.columns,
            "units": self.units,
            "waves": self.waves,
            "deviation": self.deviation,
        }


def _at_least(layer: str, input_shape: tuple[int, ...], columns: int) -> int:
    """The number of columns of flat samples."""
    features = one_dimensional(layer, input_shape)
    if features < columns:
        raise InvalidInputError(f"{layer} embeds {columns} columns, but samples have only {features}")
    return features
