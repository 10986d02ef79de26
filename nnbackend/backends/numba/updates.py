"""What optimisers do to a vector of parameters; formulae as in :mod:`nnbackend.optimizers`.

Each rule has the constants that it reads, in order, and how many slots it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnbackend.backends.numba.vectors import Vector, multiply_add

__all__ = ["ADAM", "CONSTANTS", "MOMENTUM", "NESTEROV", "RMSPROP", "RULES", "SGD", "Rule"]

SGD, MOMENTUM, NESTEROV, ADAM, RMSPROP = range(5)

#: At most so many constants a rule has.
CONSTANTS = 9


@dataclass(frozen=True)
class Rule:
    """An optimiser's step for one vector.

    Attributes
    ----------
    name : str
    slots, constants : int
        How many of each it has.
    apply : callable
        (parameter, gradient, slots, constants) -> (parameter, slots)
    """

    name: str
    slots: int
    constants: int
    apply: Callable[[Vector, Vector, Sequence[Vector], Sequence[Vector]], tuple[Vector, Sequence[Vector]]]


def _sgd(p: Vector, g: Vector, slots: Sequence[Vector], constants: Sequence[Vector]) -> tuple[Vector, Sequence[Vector]]:
    minus_rate, weight_decay = constants
    return multiply_add(minus_rate, multiply_add(weight_decay, p, g), p), []


def _momentum(
    p: Vector, g: Vector, slots: Sequence[Vector], constants: Sequence[Vector]
) -> tuple[Vector, Sequence[Vector]]:
    minus_rate, weight_decay, momentum = constants
    velocity = multiply_add(momentum, slots[0], multiply_add(weight_decay, p, g))
    return multiply_add(minus_rate, velocity, p), [velocity]


def _nesterov(
    p: Vector, g: Vector, slots: Sequence[Vector], constants: Sequence[Vector]
) -> tuple[Vector, Sequence[Vector]]:
    minus_rate, weight_decay, momentum = constants
    g = multiply_add(weight_decay, p, g)
    velocity = multiply_add(momentum, slots[0], g)
    return multiply_add(minus_rate, multiply_add(momentum, velocity, g), p), [velocity]


def _adam(
    p: Vector, g: Vector, slots: Sequence[Vector], constants: Sequence[Vector]
) -> tuple[Vector, Sequence[Vector]]:
    """The rate carries 1 / (1 - beta1^t), `correction2` is 1 / sqrt(1 - beta2^t).

    `rest` is 1 - beta, subtracted in double precision: in float32, 1 - 0.999 is off by 1e-5 of itself.
    """
    minus_rate, correction2, beta1, rest1, beta2, rest2, epsilon, coupled, decoupled = constants
    g = multiply_add(coupled, p, g)
    m = multiply_add(beta1, slots[0], rest1 * g)
    v = multiply_add(beta2, slots[1], rest2 * (g * g))
    return multiply_add(minus_rate, m / multiply_add(v.root(), correction2, epsilon), p * decoupled), [m, v]


def _rmsprop(
    p: Vector, g: Vector, slots: Sequence[Vector], constants: Sequence[Vector]
) -> tuple[Vector, Sequence[Vector]]:
    minus_rate, weight_decay, decay, rest, epsilon = constants
    g = multiply_add(weight_decay, p, g)
    v = multiply_add(decay, slots[0], rest * (g * g))
    return multiply_add(minus_rate, g / (v.root() + epsilon), p), [v]


#: By code.
RULES = [
    Rule("sgd", 0, 2, _sgd),
    Rule("momentum", 1, 3, _momentum),
    Rule("nesterov", 1, 3, _nesterov),
    Rule("adam", 2, 9, _adam),
    Rule("rmsprop", 1, 5, _rmsprop),
]
