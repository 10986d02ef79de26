"""Initial weights: drawn on the host in float64 from the network's seed, so they are the same on every backend.

For a weight of shape (inputs, outputs), fan-in is `inputs` and fan-out is `outputs`. Leading axes are kernel positions,
as in (height, width, inputs, outputs), and multiply both, as in Keras. A vector has both equal to its length. Scales:
Glorot and Bengio (2010), He et al. (2015), LeCun et al. (1998).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from nnbackend.backends.contract import HostArray
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.support.checks import Plain, number

__all__ = [
    "INITIALIZERS",
    "Given",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "LeCunNormal",
    "LeCunUniform",
    "Normal",
    "Ones",
    "Uniform",
    "Zeros",
    "get_initializer",
]


class Initializer(ABC, Plain):
    """Computes the initial values of a parameter."""

    @abstractmethod
    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
        """Draw the values.

        Parameters
        ----------
        generator : numpy.random.Generator
        shape : tuple of int
            (outputs,) or (..., inputs, outputs).

        Returns
        -------
        float64 array of that shape
        """

    def config(self) -> dict[str, Any]:
        """The configuration for a model file, as plain JSON; see :func:`nnbackend.initializers.get_initializer`.

        Arrays of values and user-defined classes have no name and become zeros: the file contains the weights
        themselves, and the initialiser only describes the network.
        """
        name = next((name for name, kind in INITIALIZERS.items() if kind is type(self)), None)
        return {"name": "zeros"} if name is None else {"name": name, **vars(self)}


class Zeros(Initializer):
    """All zero."""

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
        return np.zeros(shape)


class Ones(Initializer):
    """All one."""

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
        return np.ones(shape)


class Normal(Initializer):
    """Normal with the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, standard_deviation: float = 1.0) -> None:
        self.mean = number("mean", mean)
        self.standard_deviation = number("standard deviation", standard_deviation, low=0)

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
        return generator.normal(self.mean, self.standard_deviation, shape)


class Uniform(Initializer):
    """Uniform on [low, high)."""

    def __init__(self, low: float = -0.05, high: float = 0.05) -> None:
        self.low = number("low", low)
        self.high = number("high", high)
        if self.low > self.high:
            raise InvalidInputError(f"Uniform needs low <= high, received {shown(self)}")
        if not math.isfinite(self.high - self.low):
            raise InvalidInputError(f"Uniform needs high - low within the range of float64, received {shown(self)}")

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
        return generator.uniform(self.low, self.high, shape)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Fan-in and fan-out of a weight: the number of terms in each output, and of outputs that each input contributes
    to."""
    if len(shape) == 1:
        return shape[0], shape[0]
    *positions, inputs, outputs = shape
    field = math.prod(positions)
    return field * inputs, field * outputs


class _Scaled(Initializer):
    """Zero mean, and a variance that preserves the scale of signals from layer to layer."""

    def variance(self, fan_in: int, fan_out: int) -> float:
        raise NotImplementedError

    def _variance_of(self, shape: tuple[int, ...]) -> float:
        return self.variance(*fans(shape))


class _ScaledNormal(_Scaled):
    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
        return generator.normal(0.0, math.sqrt(self._variance_of(shape)), shape)


class _ScaledUniform(_Scaled):
    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
        limit = math.sqrt(3 * self._variance_of(shape))
        return generator.uniform(-limit, limit, shape)


class _He(_Scaled):
    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / fan_in


class _Glorot(_Scaled):
    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / (fan_in + fan_out)


class _LeCun(_Scaled):
    def variance(self, fan_in: int, fan_out: int) -> float:
        return 1 / fan_in


class HeNormal(_He, _ScaledNormal):
    """Normal with variance 2 / fan-in: for ReLU and similar activations."""


class HeUniform(_He, _ScaledUniform):
    """Uniform with variance 2 / fan-in: for ReLU and similar activations."""


class GlorotNormal(_Glorot, _ScaledNormal):
    """Normal with variance 2 / (fan-in + fan-out): for sigmoid, tanh and linear layers."""


class GlorotUniform(_Glorot, _ScaledUniform):
    """Uniform with variance 2 / (fan-in + fan-out): for sigmoid, tanh and linear layers."""


class LeCunNormal(_LeCun, _ScaledNormal):
    """Normal with variance 1 / fan-in."""


class LeCunUniform(_LeCun, _ScaledUniform):
    """Uniform with variance 1 / fan-in."""


class Given(Initializer):
    """Values given by the caller.

    Parameters
    ----------
    values : array_like
        In the parameter's shape.
    """

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, dtype=np.float64)
        if not np.isfinite(self.values).all():
            raise InvalidInputError("an array of initial values holds NaN or infinity; give finite values")

    def __repr__(self) -> str:
        return f"Given({self.values.tolist()!r})"

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
        if self.values.shape != shape:
            raise InvalidInputError(f"initial values have shape {self.values.shape}, the parameter needs {shape}")
        return self.values.copy()


INITIALIZERS: dict[str, type[Initializer]] = {
    "zeros": Zeros,
    "ones": Ones,
    "normal": Normal,
    "uniform": Uniform,
    "he_normal": HeNormal,
    "he_uniform": HeUniform,
    "glorot_normal": GlorotNormal,
    "glorot_uniform": GlorotUniform,
    "lecun_normal": LeCunNormal,
    "lecun_uniform": LeCunUniform,
}


def get_initializer(initializer: Any) -> Initializer:
    """An initialiser from an object, a name, a configuration or an array of values.

    Raises
    ------
    UnknownNameError
        No initialiser has that name.
    InvalidInputError
        Parameters out of range, or an array that is not finite.
    """
    if isinstance(initializer, Initializer):
        return initializer
    if isinstance(initializer, str):
        if initializer not in INITIALIZERS:
            raise UnknownNameError("initializer", initializer, INITIALIZERS)
        return INITIALIZERS[initializer]()
    if isinstance(initializer, dict):
        arguments = dict(initializer)
        name = arguments.pop("name", None)
        if not isinstance(name, str) or name not in INITIALIZERS:
            raise UnknownNameError("initializer", name, INITIALIZERS)
        try:
            return INITIALIZERS[name](**arguments)
        except TypeError as error:
            raise InvalidInputError(f"initializer {name!r} does not take {shown(arguments)}: {error}") from None
    try:
        return Given(initializer)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"an initializer is a name, an Initializer or an array of numbers, received {shown(initializer)}"
        ) from None


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
