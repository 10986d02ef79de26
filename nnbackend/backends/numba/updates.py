"""The updates of optimisers for a vector of parameters; formulas as in :mod:`nnbackend.optimizers`.

A *record* holds integers: the address of the rule's float64 constants, and the distances in elements from the gradients
to the parameters and to the slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnbackend.backends.declaration import Call
from nnbackend.backends.numba import simd as words
from nnbackend.backends.numba.records import INTEGER, REAL, Record
from nnbackend.backends.numba.simd import Simd, Value
from nnbackend.backends.numba.vectors import Vector, load_constants, multiply_add, where

__all__ = [
    "ADAM", "CONSTANTS", "LION", "MOMENTUM", "NESTEROV", "RECORD", "RMSPROP", "RULES", "SGD", "UPDATE", "Rule",
    "Updating", "rule_of",
]  # fmt: skip

SGD, MOMENTUM, NESTEROV, ADAM, RMSPROP, LION = range(6)

#: The inputs of an optimiser's step: addresses of the epoch's learning rates and momenta (0 if every step has the same)
#: and their number, distances in elements from the gradients to the parameters and the slots, and the constants of all
#: optimisers by the names of the contract.
UPDATE = Record.of(
    "update", learning_rates=INTEGER, momenta=INTEGER, steps=INTEGER,
    to_parameters=INTEGER, to_first=INTEGER, to_second=INTEGER,
    weight_decay=REAL, momentum=REAL, beta1=REAL, beta2=REAL, epsilon=REAL, decoupled=REAL, decay=REAL,
)  # fmt: skip

#: Maximum number of constants of a rule, and number of integers in a record.
CONSTANTS, RECORD = 9, 4


@dataclass(frozen=True)
class Rule:
    """An optimiser's step for one vector.

    Attributes
    ----------
    name : str
    slots, constants : int
        Numbers of slots and constants.
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


def _lion(
    p: Vector, g: Vector, slots: Sequence[Vector], constants: Sequence[Vector]
) -> tuple[Vector, Sequence[Vector]]:
    minus_rate, shrink, beta1, rest1, beta2, rest2 = constants
    direction = multiply_add(beta1, slots[0], rest1 * g)
    # The direction itself if it is neither above nor below zero: zero, or NaN, which must propagate.
    sign = where(direction > 0, direction.like(1.0), where(direction < 0, direction.like(-1.0), direction))
    return multiply_add(minus_rate, sign, p * shrink), [multiply_add(beta2, slots[0], rest2 * g)]


#: All rules; the index is the code.
RULES = [
    Rule("sgd", 0, 2, _sgd),
    Rule("momentum", 1, 3, _momentum),
    Rule("nesterov", 1, 3, _nesterov),
    Rule("adam", 2, 9, _adam),
    Rule("rmsprop", 1, 5, _rmsprop),
    Rule("lion", 1, 6, _lion),
]


def rule_of(call: Call) -> int:
    """The rule of a recorded update."""
    if call.operation == "sgd_update":
        return SGD if call.velocity is None else NESTEROV if call.nesterov else MOMENTUM
    return {"adam_update": ADAM, "rmsprop_update": RMSPROP, "lion_update": LION}[call.operation]


class Updating:
    """Applies vectors of gradients to their parameters.

    Parameters
    ----------
    simd : Simd
    record : Value
        Its address.
    rule : Rule
    """

    def __init__(self, simd: Simd, record: Value, rule: Rule) -> None:
        builder = simd.builder
        pointer = builder.inttoptr(record, words.INTEGER.as_pointer())
        constants, *distances = (builder.load(builder.gep(pointer, [simd.integer(n)])) for n in range(RECORD))
        self._simd, self._rule = simd, rule
        self._distances = distances[: 1 + rule.slots]
        self._constants = load_constants(simd, constants, rule.constants)

    def places(self, gradient: Value, /) -> Sequence[Value]:
        """Pointers to the parameter and the slots for a gradient."""
        return [self._simd.move(gradient, distance) for distance in self._distances]

    def __call__(self, vector: Value, gradient: Value, mask: Value | None, /) -> None:
        """Apply a vector as the gradient at the address `gradient`, in the lanes of the mask."""
        simd, pointers = self._simd, self.places(gradient)
        parameter, *slots = (Vector(simd, simd.load(pointer, mask)) for pointer in pointers)
        parameter, new = self._rule.apply(parameter, Vector(simd, vector), slots, self._constants)
        for pointer, result in zip(pointers, [parameter, *new], strict=True):
            simd.store(result.value, pointer, mask)
