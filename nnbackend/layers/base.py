"""What a layer is: hyperparameters, and the order in which operations are called, forwards and backwards.

To write one, derive from :class:`Layer`; `forward` and `backward` run once, when a step is recorded, and see
buffers only as handles to pass on::

    class Scale(nn.Layer):
        \"\"\"Multiply by one learned number a feature.\"\"\"

        def parameters(self, input_shape):
            return (Parameter("scale", input_shape, Normal(1.0, 0.0)),)

        def forward(self, step, x):
            out = step.buffer(x.shape[1])
            step.call(multiply, x, step.parameter("scale"), out)
            return out, x

        def backward(self, step, saved, upstream, need_input_gradient):
            ...

`step.record` records an operation of the contract (:mod:`nnbackend.backends.contract`), which runs on every backend at
full speed; `step.call` records any function ``function(backend, *arrays)``, which works on the backend's own arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError
from nnbackend.initializers import Initializer

__all__ = ["Layer", "LayerStep", "Parameter"]


@dataclass(frozen=True)
class Parameter:
    """A learned array of a layer.

    Attributes
    ----------
    name : str
        Name within the layer: ``"weight"``.
    shape : tuple of int
        (inputs, outputs) or (outputs,).
    initializer : Initializer
    l1, l2 : float
        Factors of the penalty ``l1 sum |w| + l2 / 2 sum w^2`` that is added to the loss.
    """

    name: str
    shape: tuple[int, ...]
    initializer: Initializer
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 2):
            raise InvalidInputError(f"parameter {self.name!r} must have 1 or 2 dimensions, received shape {self.shape}")


class LayerStep(Protocol):
    """What a layer sees of the step that is being recorded.

    Attributes
    ----------
    training : bool
        Whether this is a training step or one of prediction or evaluation.
    seed : int
        The network's seed.
    stream : int
        The layer's own stream of random numbers.
    counter : array
        The step counter, see :meth:`Backend.gather`.
    first_row : int
        How many rows of the batch are on other machines, before those of this step: 0 unless training is distributed.
    """

    @property
    def training(self) -> bool: ...

    @property
    def seed(self) -> int: ...

    @property
    def stream(self) -> int: ...

    @property
    def counter(self) -> Array: ...

    @property
    def first_row(self) -> int: ...

    def parameter(self, name: str) -> Array:
        """The layer's parameter of that name."""

    def gradient(self, name: str) -> Array:
        """Where the gradient of that parameter is to be written."""

    def buffer(self, features: int) -> Array:
        """A (rows, features) buffer of the network's dtype that belongs to this step."""

    def record(self, operation: str, *arguments: Any, **named: Any) -> None:
        """Record an operation of the backend contract; its arguments in the contract's order, or by name.

        Raises
        ------
        InvalidInputError
            There is no such operation, or it does not take arrays of these shapes, dtypes and addresses.
        """

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Record any function; it is called as ``function(backend, *arguments)``."""


class Layer(ABC):
    """A step from (rows, features) to (rows, features) with, maybe, parameters."""

    #: Name in model files and summaries; set by `__init_subclass__` from the class's name.
    kind: ClassVar[str] = "layer"

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.kind = cls.__name__.lower()

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one sample after the layer.

        Raises
        ------
        InvalidInputError
            The layer cannot follow this shape.
        """
        return input_shape

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        """The layer's learned arrays; none unless overridden."""
        return ()

    @abstractmethod
    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        """Record the forward pass.

        Parameters
        ----------
        step : LayerStep
        x : (rows, features) array

        Returns
        -------
        output : (rows, features) array
        saved : anything
            What `backward` needs.
        """

    @abstractmethod
    def backward(self, step: LayerStep, saved: Any, upstream: Array, need_input_gradient: bool) -> Array:
        """Record the backward pass.

        Parameters
        ----------
        step : LayerStep
        saved : anything
            What `forward` returned.
        upstream : (rows, features) array
            Gradient with respect to the layer's output. May be overwritten.
        need_input_gradient : bool
            False for the first layer with parameters; what is returned is then not read.

        Returns
        -------
        (rows, features) array : gradient with respect to the layer's input
        """

    def config(self) -> dict[str, Any]:
        """The hyperparameters as plain JSON: keyword arguments that make the same layer again."""
        return {}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.config().items())
        return f"{type(self).__name__}({arguments})"
