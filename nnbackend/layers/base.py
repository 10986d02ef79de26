"""The interface of layers: hyperparameters, and the operations of the forward and backward passes.

To write one, derive from :class:`Layer`. Its `forward` and `backward` run once, when a step is recorded, and treat
buffers as opaque handles::

    class Factors(nn.Layer):
        \"\"\"Multiply by one learned number per feature.\"\"\"

        def parameters(self, input_shape):
            return (Parameter("scale", input_shape, Normal(1.0, 0.0)),)

        def forward(self, step, x):
            out = step.buffer(*step.input_shape)
            step.call(multiply, x, step.parameter("scale"), out)
            return out, x

        def backward(self, step, saved, upstream, need_input_gradient):
            ...

`step.record` records an operation of the contract (:mod:`nnbackend.backends.contract`), which runs on every backend at
full speed; `step.call` records any function ``function(backend, *arrays)``, which works on the backend's own arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError, shown
from nnbackend.initializers import Initializer
from nnbackend.support.attributes import Guarded
from nnbackend.support.checks import above_zero, count, number

__all__ = ["Layer", "LayerStep", "Parameter", "fixed_trainable", "layers_config", "one_dimensional"]


@dataclass(frozen=True)
class Parameter:
    """An array of a layer that is saved with the network: learned, or state such as a running mean.

    Attributes
    ----------
    name : str
        Name within the layer: ``"weight"``.
    shape : tuple of int
        At least one axis: (outputs,), (inputs, outputs), (height, width, channels, filters), ...
    initializer : Initializer
    l1, l2 : float
        Factors of the penalty ``l1 sum |w| + l2 / 2 sum w^2`` that is added to the loss.
    trainable : bool
        True if the optimiser updates it. False for state, which the layer's forward pass updates. State has no
        gradient, weight decay or penalty.
    nonnegative : bool
        Whether values below 0 are refused where weights come from outside, as for a running variance.
    positive : bool
        Whether 0 is refused, too, also as an initial value, as for a variance by which the layer divides.
    learning_rate_factor : float
        Multiplies the learning rate, together with the factor of its layer; above 0.

    Raises
    ------
    InvalidInputError
        An argument has the wrong type or is out of range.
    """

    name: str
    shape: tuple[int, ...]
    initializer: Initializer
    l1: float = 0.0
    l2: float = 0.0
    trainable: bool = True
    nonnegative: bool = False
    positive: bool = False
    learning_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or "." in self.name:
            raise InvalidInputError(f"a parameter's name must be text without dots, received {shown(self.name)}")
        what = f"parameter {self.name!r}"
        if not isinstance(self.shape, tuple | list):
            raise InvalidInputError(f"{what} must have a tuple as its shape, received {shown(self.shape)}")
        if not self.shape:
            raise InvalidInputError(f"{what} must have at least one axis, received shape ()")
        object.__setattr__(self, "shape", tuple(count(f"an axis of {what}", extent) for extent in self.shape))
        if not isinstance(self.initializer, Initializer):
            raise InvalidInputError(
                f"{what} must have an initializer such as nn.Zeros(), received {shown(self.initializer)}"
            )
        for penalty in ("l1", "l2"):
            number(f"{penalty} of {what}", getattr(self, penalty), low=0)
        above_zero(f"learning_rate_factor of {what}", self.learning_rate_factor)
        for flag in ("trainable", "nonnegative", "positive"):
            value = getattr(self, flag)
            if not isinstance(value, bool):
                raise InvalidInputError(f"{flag} of {what} must be True or False, received {shown(value)}")


class LayerStep(Protocol):
    """The interface between a layer and the step that is being recorded.

    Attributes
    ----------
    training : bool
        True in a training step, False in prediction and evaluation.
    trainable : bool
        False if the layer, or a layer that contains it, is frozen; `backward` then need not record the gradients of its
        parameters.
    input_shape : tuple of int
        Shape of one sample before the layer.
    seed : int
        The network's seed.
    stream : int
        The number of the layer's random stream.
    counter : array
        The step counter, see :meth:`Backend.gather`.
    first_row : int
        Number of rows of the batch on lower ranks; 0 unless training is distributed.
    """

    @property
    def training(self) -> bool: ...

    @property
    def trainable(self) -> bool: ...

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def seed(self) -> int: ...

    @property
    def stream(self) -> int: ...

    @property
    def counter(self) -> Array: ...

    @property
    def first_row(self) -> int: ...

    def parameter(self, name: str) -> Array:
        """The layer's parameter or state of that name."""

    def gradient(self, name: str) -> Array:
        """The buffer for that parameter's gradient; for state and frozen parameters, memory that is never read.

        All of it must be written in every step: it still holds the gradient of the previous step.
        """

    def buffer(self, *shape: int, dtype: Any = None) -> Array:
        """A ``(rows, *shape)`` buffer that belongs to this step.

        Parameters
        ----------
        *shape : int
            Shape of one sample, as numbers or as a tuple. With one axis, rows are padded as the backend requires; with
            more, the buffer is contiguous.
        dtype : optional
            The network's if not given.
        """

    def like(self, x: Array) -> Array:
        """A buffer with the shape and padding of `x`, in the network's dtype."""

    def memory(self, *shape: int) -> Array:
        """A contiguous buffer of this shape that belongs to this step, in the network's dtype: for what does not have a
        row for each sample, such as the statistics of a batch."""

    def scratch(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """Contiguous memory for intermediate results of the next call only.

        It may be an argument only of the next call that is recorded with `record` or `call`, which may use several
        scratch buffers. Later calls reuse the memory. The contents are undefined before the call.

        Raises
        ------
        InvalidInputError
            From `record` and `call`: the scratch buffer belongs to an earlier call. After `forward` and `backward`:
            they return a scratch buffer.
        """

    def matrix(self, x: Array) -> Array:
        """`x` as (rows, all features of a sample), sharing its memory."""

    def channels(self, x: Array) -> Array:
        """`x` as (everything before the last axis, last axis), sharing its memory.

        For samples of several axes this is (rows x positions, channels); for a four-axis kernel, (height x width x
        channels, filters).
        """

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        """`x` as ``(rows, *shape)``: the same memory, or a recorded copy if padded rows rule that out."""

    def record(self, operation: str, *arguments: Any, **named: Any) -> None:
        """Record an operation of the backend contract; its arguments in the contract's order, or by name.

        Raises
        ------
        InvalidInputError
            There is no such operation, or it does not accept these shapes, dtypes or overlapping arrays.
        """

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Record any function; it is called as ``function(backend, *arguments)``."""

    def forward(self, layers: Layer | Sequence[Layer], x: Array) -> tuple[Array, Any]:
        """Record the forward pass of one of the layer's `sublayers`, or of several in order.

        Returns
        -------
        output : (rows, ...) array
        saved : anything
            Pass it to `backward`.
        """

    def backward(
        self, layers: Layer | Sequence[Layer], saved: Any, upstream: Array, need_input_gradient: bool = True
    ) -> Array:
        """Record the backward pass of what `forward` recorded; returns the gradient of its input.

        It may overwrite `upstream`. The gradients of a layer's parameters are written, not added up, so a layer that
        learns can be passed through only once.

        Raises
        ------
        InvalidInputError
            A layer that learns is passed through a second time.
        """


class Layer(Guarded, ABC):
    """A function of a batch, optionally with parameters, state and sublayers.

    Parameters
    ----------
    trainable : bool
        False freezes the layer: training does not change its parameters and those of its `sublayers`.
    learning_rate_factor : float
        Multiplies the learning rate of the layer's parameters; above 0. That of a containing layer multiplies it, too.
    """

    #: Name in model files and summaries; set by `__init_subclass__` from the class's name.
    kind: ClassVar[str] = "layer"

    #: The layers that this one contains, in the order in which their parameters are numbered.
    sublayers: tuple[Layer, ...] = ()

    #: Names of the constructor's arguments that are lists of layers. `config` must describe them with
    #: ``nnbackend.layers.layers_config``; reading a configuration converts them back to layers.
    layer_arguments: ClassVar[tuple[str, ...]] = ("layers",)

    _trainable: bool = True
    _learning_rate_factor: float = 1.0

    def __init__(self, *, trainable: bool = True, learning_rate_factor: float = 1.0) -> None:
        self.trainable = trainable
        self.learning_rate_factor = learning_rate_factor

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.kind = cls.__name__.lower()

    @property
    def trainable(self) -> bool:
        """Whether training may change the layer's parameters. May be set before and after training."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise InvalidInputError(f"trainable must be True or False, received {shown(value)}")
        self._check_not_fixed("trainable", value != self._trainable)
        self._trainable = value

    @property
    def learning_rate_factor(self) -> float:
        """Factor of the learning rate for the layer's parameters and those of its sublayers. May be set before and
        after training."""
        return self._learning_rate_factor

    @learning_rate_factor.setter
    def learning_rate_factor(self, value: float) -> None:
        factor = number("learning_rate_factor", value)
        if factor <= 0:
            raise InvalidInputError(
                f"learning_rate_factor must be above 0, received {shown(value)}; to freeze a layer, give "
                "trainable=False"
            )
        self._check_not_fixed("learning_rate_factor", factor != self._learning_rate_factor)
        self._learning_rate_factor = factor

    def _check_not_fixed(self, name: str, changes: bool) -> None:
        if changes and any(id(self) in layers for layers in _fixed):
            raise InvalidInputError(
                f"{name} of {self!r} cannot be changed during training; set it before fit, or after it has ended"
            )

    def training_config(self) -> dict[str, Any]:
        """`trainable` and `learning_rate_factor`, if they are not the default, for configurations and texts."""
        given = {} if self._trainable else {"trainable": False}
        factor = {} if self._learning_rate_factor == 1 else {"learning_rate_factor": self._learning_rate_factor}
        return given | factor

    def _training_text(self) -> str:
        """The same at the end of a constructor call."""
        return "".join(f", {name}={value!r}" for name, value in self.training_config().items())

    def _change(self, name: str, value: Any) -> Any:
        raise self._refusal(name)

    def _instead(self, name: str) -> str:
        return "make a new layer, and a new network with it"

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one sample after the layer.

        Raises
        ------
        InvalidInputError
            The layer does not accept this input shape.
        """
        return input_shape

    def sublayer_shapes(self, input_shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Shape of one sample before each of `sublayers`. By default they are in sequence."""
        shapes = []
        for layer in self.sublayers:
            shapes.append(input_shape)
            input_shape = layer.output_shape(input_shape)
        return tuple(shapes)

    def parameters(self, input_shape: tuple[int, ...]) -> tuple[Parameter, ...]:
        """The layer's own parameters and state; none unless overridden."""
        return ()

    @abstractmethod
    def forward(self, step: LayerStep, x: Array) -> tuple[Array, Any]:
        """Record the forward pass.

        Parameters
        ----------
        step : LayerStep
        x : (rows, *input_shape) array
            Must not be overwritten: the layer before may need it for its gradient.

        Returns
        -------
        output : (rows, *output_shape) array
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
        upstream : (rows, *output_shape) array
            Gradient with respect to the layer's output. May be overwritten.
        need_input_gradient : bool
            False for the first layer that learns; the result is then ignored.

        Returns
        -------
        (rows, *input_shape) array : gradient with respect to the layer's input
        """

    def config(self) -> dict[str, Any]:
        """The hyperparameters as plain JSON: keyword arguments of the constructor.

        `trainable` and `learning_rate_factor` may be omitted: networks add them to their configuration if they are not
        the default.
        """
        return {}

    def __repr__(self) -> str:
        values = {name: value for name, value in self.config().items() if value is not None}
        if self.sublayers:
            values |= {name: list(self.sublayers) for name in self.layer_arguments if name in values}
        values |= self.training_config()
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in values.items())})"


def layers_config(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """The layers as plain JSON."""
    described = []
    for layer in layers:
        described.append({"kind": layer.kind, **layer.config(), **layer.training_config()})
    return described


def one_dimensional(layer: str, input_shape: tuple[int, ...]) -> int:
    """The number of features, for a layer that takes flat samples only."""
    if len(input_shape) != 1:
        raise InvalidInputError(f"{layer} takes flat samples, received shape {input_shape}; put Flatten() before it")
    return input_shape[0]


#: The ids of the layers of each network that is being trained. Appending and removing a set is atomic.
_fixed: list[frozenset[int]] = []


@contextmanager
def fixed_trainable(layers: Iterable[Layer]) -> Iterator[None]:
    """A context in which changing `trainable` or `learning_rate_factor` of one of these layers raises."""
    ids = frozenset(map(id, layers))
    _fixed.append(ids)
    try:
        yield
    finally:
        _fixed.remove(ids)
