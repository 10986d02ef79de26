"""Optimisers: hyperparameters, names of slots, and the operation that updates all parameters.

Optimisers have no state. Their slots (velocities, moments) are flat buffers with the layout of the trained parameters,
and belong to the training run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array
from nnbackend.errors import InvalidInputError, shown
from nnbackend.schedules import Constant, Schedule, as_schedule, checked_momenta
from nnbackend.support.attributes import Guarded
from nnbackend.support.checks import above_zero, flag, number

__all__ = ["OPTIMIZERS", "SGD", "Adam", "AdamW", "Lion", "Optimizer", "RMSprop"]

Record = Callable[..., None]


class Optimizer(Guarded, ABC):
    """Base class of all optimisers.

    Parameters
    ----------
    learning_rate : float or Schedule
    weight_decay : float
        This factor times the trained parameters, including biases, is added to the gradient.

    Attributes
    ----------
    operation : str
        The backend operation that updates the parameters.
    slots : tuple of str
        Names of the state buffers, in the operation's order; each is as large as the buffer of trained parameters.
    momentum_name : str
        The hyperparameter that a schedule of the momentum replaces; empty if there is none.
    """

    operation: ClassVar[str]
    schedule: Schedule
    slots: tuple[str, ...] = ()
    momentum_name: ClassVar[str] = ""
    default_learning_rate: ClassVar[float] = 1e-3
    _training: bool = False
    _hints: ClassVar[dict[str, str]] = {"lr": "It is called learning_rate."}

    def __init__(self, learning_rate: float | Schedule, weight_decay: float = 0.0) -> None:
        self.schedule = as_schedule(learning_rate)
        if self.schedule.sets_momentum and not self.momentum_name:
            raise self._has_no_momentum(self.schedule)
        self.weight_decay = number("weight_decay", weight_decay, low=0)

    @property
    def learning_rate(self) -> float | Schedule:
        """The learning rate, or its schedule. A callback may set it during training: the new rate applies from the next
        epoch on, and is part of checkpoints."""
        schedule = self.schedule
        return schedule.value if isinstance(schedule, Constant) else schedule

    @learning_rate.setter
    def learning_rate(self, rate: float | Schedule) -> None:
        self.schedule = self._change("schedule", rate)

    def _change(self, name: str, value: Any) -> Any:
        if name != "schedule":
            raise self._refusal(name)
        schedule = as_schedule(value)
        if self._training and not isinstance(schedule, Constant):
            raise InvalidInputError(
                f"during training, learning_rate can be set to a number, received {shown(value)}; to use a schedule, "
                "give it to the optimizer before fit"
            )
        if schedule.sets_momentum and not self._has_momentum:
            raise self._has_no_momentum(schedule)
        return schedule

    @property
    def _has_momentum(self) -> bool:
        return bool(self.momentum_name)

    def _has_no_momentum(self, schedule: Schedule) -> InvalidInputError:
        instead = f"a {self.momentum_name} above 0, or " if self.momentum_name else ""
        return InvalidInputError(
            f"{type(self).__name__} has no momentum that {shown(schedule)} could set; give it {instead}a schedule that "
            "leaves the momentum alone, such as OneCycle(..., cycle_momentum=False)"
        )

    def epoch_momenta(self, epoch: int, steps: int) -> npt.NDArray[np.float64]:
        """The momenta of all steps of an epoch, shape (steps,): the schedule's, or its own if the schedule gives none.

        The latter happens to a step that was recorded with a schedule of the momentum, when a callback sets the
        learning rate to a number.
        """
        if self.schedule.sets_momentum:
            return checked_momenta(self.schedule, epoch, steps)
        return np.full(steps, getattr(self, self.momentum_name))

    def record(
        self,
        record: Record,
        parameters: Array,
        gradients: Array,
        slots: Mapping[str, Array],
        counter: Array,
        learning_rates: Array,
        momenta: Array | None = None,
    ) -> None:
        """Record the update of a flat parameter buffer.

        Parameters
        ----------
        record : callable
            ``record(operation, *arguments)``.
        parameters, gradients : (size,) arrays
        slots : dict of (size,) arrays, zero at the start
        counter : (3,) int64
        learning_rates : (steps of an epoch,) float64
        momenta : (steps of an epoch,) float64, optional
            Take the place of the hyperparameter `momentum_name`.
        """
        # SGD without momentum has no state; its operation takes None.
        state = [slots[name] for name in self.slots] or [None]
        scheduled = () if momenta is None else (momenta,)
        record(self.operation, parameters, gradients, *state, counter, learning_rates, *self.rule(), *scheduled)

    @abstractmethod
    def rule(self) -> tuple[Any, ...]:
        """The operation's hyperparameters, in the contract's order."""

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Held by `fit`: the learning rate can be set to numbers only, which checkpoints can store."""
        self._training = True
        try:
            yield
        finally:
            self._training = False


def check_not_class(optimizer: object) -> None:
    """Reject a class where its object is meant, and a learning rate where its optimizer is meant.

    Raises
    ------
    InvalidInputError
    """
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        name = optimizer.__name__
        raise InvalidInputError(
            f"optimizer must be an object, received the class {name}; make one: optimizer={name}(), or with a rate, "
            f"{name}({optimizer.default_learning_rate:g})"
        )
    if isinstance(optimizer, Schedule | int | float):
        raise InvalidInputError(
            f"optimizer must be an object, received the learning rate {shown(optimizer)}; give it to one, for example "
            "optimizer=Adam(rate)"
        )


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum; formulas in :meth:`Backend.sgd_update`.

    Parameters
    ----------
    learning_rate : float or Schedule
    momentum : float
        0 <= momentum < 1; :class:`OneCycle` sets it for each step, if it is above 0.
    nesterov : bool
        Whether to use Nesterov momentum; needs momentum above 0.
    weight_decay : float
    """

    operation = "sgd_update"
    momentum_name = "momentum"
    default_learning_rate = 0.1

    def __init__(
        self,
        learning_rate: float | Schedule = default_learning_rate,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = number("momentum", momentum, low=0, high=1, below=True)
        self.nesterov = flag("nesterov", nesterov)
        if self.nesterov and self.momentum == 0:
            raise InvalidInputError("Nesterov's method looks ahead along the velocity and needs momentum above 0")
        if self.schedule.sets_momentum and not self._has_momentum:
            raise self._has_no_momentum(self.schedule)
        self.slots = ("velocity",) if self.momentum else ()

    @property
    def _has_momentum(self) -> bool:
        return self.momentum > 0

    def rule(self) -> tuple[Any, ...]:
        return (self.momentum, self.nesterov, self.weight_decay)


class Adam(Optimizer):
    """Adam; formulas in :meth:`Backend.adam_update`.

    Parameters
    ----------
    learning_rate : float or Schedule
    beta1, beta2 : float
        Decay of the first and second moments, 0 <= beta < 1. :class:`OneCycle` sets beta1 for each step; the bias of
        the first moment is then corrected with ``1 - beta1 ** t`` of the step's own beta1, as in PyTorch.
    epsilon : float
        Added to the root of the second moment.
    weight_decay : float
    """

    operation = "adam_update"
    momentum_name = "beta1"
    slots = ("first_moment", "second_moment")
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        learning_rate: float | Schedule = Optimizer.default_learning_rate,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.beta1 = number("beta1", beta1, low=0, high=1, below=True)
        self.beta2 = number("beta2", beta2, low=0, high=1, below=True)
        self.epsilon = above_zero("epsilon", epsilon)

    def rule(self) -> tuple[Any, ...]:
        return (self.beta1, self.beta2, self.epsilon, self.weight_decay, self._decoupled)


class AdamW(Adam):
    """Adam with decoupled weight decay, which acts directly on the parameters instead of the gradient.

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon
        As of :class:`Adam`.
    weight_decay : float
        Fraction by which a step with learning rate 1 reduces every parameter; default 0.01.
    """

    _decoupled = True

    def __init__(
        self,
        learning_rate: float | Schedule = Optimizer.default_learning_rate,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon, weight_decay)


class RMSprop(Optimizer):
    """RMSprop; formulas in :meth:`Backend.rmsprop_update`.

    Parameters
    ----------
    learning_rate : float or Schedule
    decay : float
        Decay of the running mean of squared gradients, 0 <= decay < 1.
    epsilon : float
    weight_decay : float
    """

    operation = "rmsprop_update"
    slots = ("square",)

    def __init__(
        self,
        learning_rate: float | Schedule = Optimizer.default_learning_rate,
        decay: float = 0.9,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.decay = number("decay", decay, low=0, high=1, below=True)
        self.epsilon = above_zero("epsilon", epsilon)

    def rule(self) -> tuple[Any, ...]:
        return (self.decay, self.epsilon, self.weight_decay)


class Lion(Optimizer):
    """Lion (Chen et al. 2023); formulas in :meth:`Backend.lion_update`.

    Every parameter changes by the learning rate in each step, whatever the size of its gradient, so rates are three to
    ten times smaller than those of :class:`AdamW`, and weight decays larger by as much.

    Parameters
    ----------
    learning_rate : float or Schedule
    beta1 : float
        Share of the momentum in the direction of a step, 0 <= beta1 < 1. :class:`OneCycle` sets it for each step.
    beta2 : float
        Decay of the momentum, 0 <= beta2 < 1.
    weight_decay : float
        Fraction by which a step with learning rate 1 reduces every parameter, as of :class:`AdamW`.
    """

    operation = "lion_update"
    momentum_name = "beta1"
    slots = ("momentum",)
    default_learning_rate = 1e-4

    def __init__(
        self,
        learning_rate: float | Schedule = default_learning_rate,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.beta1 = number("beta1", beta1, low=0, high=1, below=True)
        self.beta2 = number("beta2", beta2, low=0, high=1, below=True)

    def rule(self) -> tuple[Any, ...]:
        return (self.beta1, self.beta2, self.weight_decay)


#: Optimisers by name, as on the command line.
OPTIMIZERS: dict[str, type[Any]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "lion": Lion}


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
