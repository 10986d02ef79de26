"""Reads the update of a recorded training step: its optimiser, its parts, and what changes gradients before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from nnbackend.backends.contract import Array, Call
from nnbackend.backends.cupy.dense_program import UnsupportedStepError, address

__all__ = ["OPTIMIZERS", "StepUpdate", "step_update"]

#: In the order of the kernels' enum, with the names of the slots.
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "sgd_update": ("velocity",),
    "adam_update": ("first", "second"),
    "rmsprop_update": ("square",),
    "lion_update": ("moment",),
}

#: Gradients, then what changes them, then the update and the average of its results.
_ORDER = ("gradient", "weight_penalty", "correction", "clip_value", "update", "blend")
_GRADIENTS = ("dense_weight_gradient", "bias_gradient", "scale_columns_gradient")


@dataclass
class StepUpdate:
    """The update of all trained parameters of a step.

    Attributes
    ----------
    call : Call
        Of the first part. Others differ in their elements and learning rates.
    size : int
        Elements of the flat buffers of all parts.
    tables : list of (steps,) float64 arrays
        Of learning rates.
    parts : list of (begin, end, table)
        Elements of the flat buffers, and the index of their table.
    corrections : (steps,) float64 array or None
        Each step's number times a weight is subtracted from the gradient of some weights.
    corrected : dict
        The number of elements of these weights by their offset.
    largest : float
        Limit of the elements of gradients; infinite if there is none.
    average, shares : arrays or None
        The moving average of the parameters, and the share of the newest ones in each step.
    kinds : dict
        All calls that belong to the update: the kind by the identity of the call.
    """

    call: Call
    size: int = 0
    tables: list[Array] = field(default_factory=list)
    parts: list[tuple[int, int, int]] = field(default_factory=list)
    corrections: Array | None = None
    corrected: dict[int, int] = field(default_factory=dict)
    largest: float = math.inf
    average: Array | None = None
    shares: Array | None = None
    kinds: dict[int, str] = field(default_factory=dict)

    def slots(self) -> tuple[Array | None, Array | None]:
        """The optimiser's state."""
        first, second = (*(self.call.arguments[name] for name in OPTIMIZERS[self.call.operation]), None)[:2]
        return first, second

    def offset(self, gradient: Array) -> int:
        """The place of a gradient in the flat buffer, in elements."""
        return _elements(self.call.gradients, gradient)

    def table(self, begin: int, end: int) -> int:
        """The index of the learning rates of some elements."""
        for first, last, table in self.parts:
            if first <= begin and end <= last:
                return table
        raise UnsupportedStepError("a weight has several learning rates")

    def add_part(self, call: Call) -> None:
        """Add an update of the elements that follow."""
        given, first = call.arguments, self.call.arguments
        flat = ("parameters", "gradients", *OPTIMIZERS[self.call.operation])
        same = call.operation == self.call.operation and given.keys() == first.keys()
        if not same or any(not _same(given[n], first[n]) for n in first if n not in (*flat, "learning_rates")):
            raise UnsupportedStepError("parts of the update differ in more than their learning rates")
        if any((first[n] is None) != (given[n] is None) for n in flat) or any(
            first[n] is not None and _elements(first[n], given[n]) != self.size for n in flat
        ):
            raise UnsupportedStepError("parts of the update do not follow each other")
        places = [place for place, table in enumerate(self.tables) if table is call.learning_rates]
        self.tables += [] if places else [call.learning_rates]
        end = self.size + int(call.parameters.size)
        self.parts.append((self.size, end, places[0] if places else len(self.tables) - 1))
        self.size = end
        self.kinds[id(call)] = "update"

    def add_correction(self, call: Call) -> None:
        """Add a call that subtracts a multiple of a weight from its gradient, as plain SGD."""
        given, place = call.arguments, self.offset(call.parameters)
        plain = call.operation == "sgd_update" and given["velocity"] is None and not given["weight_decay"]
        same = self.corrections is None or call.learning_rates is self.corrections
        if not (plain and same and place == _elements(self.call.parameters, call.gradients)):
            raise UnsupportedStepError("they compute one update of all parameters")
        self.corrections = call.learning_rates
        self.corrected[place] = int(call.parameters.size)
        self.kinds[id(call)] = "correction"

    def add_limit(self, call: Call) -> None:
        """Add a limit of all elements of the gradients."""
        if int(call.gradients.size) != self.size or self.largest < math.inf:
            raise UnsupportedStepError("they limit all gradients alike")
        self.largest = float(call.value)
        self.kinds[id(call)] = "clip_value"

    def add_average(self, call: Call) -> None:
        """Add a moving average of the parameters."""
        whole = address(call.source) == address(self.call.parameters) and int(call.source.size) == self.size
        if not whole or call.shares is None or self.average is not None:
            raise UnsupportedStepError("they blend only parameters with their average")
        self.average, self.shares = call.out, call.shares
        self.kinds[id(call)] = "blend"


def step_update(calls: Sequence[Call]) -> StepUpdate:
    """The update of a recorded step.

    Raises
    ------
    UnsupportedStepError
        The kernels cannot compute it; the message says why.
    """
    updates = [call for call in calls if call.operation in OPTIMIZERS]
    if not updates:
        raise UnsupportedStepError("the step has no update by an optimizer of this package")
    # The last ones of which each begins where the one before ends.
    first = len(updates) - 1
    while first and _follows(updates[first - 1], updates[first]):
        first -= 1
    found = StepUpdate(updates[first])
    for call in updates[first:]:
        found.add_part(call)
    for call in updates[:first]:
        found.add_correction(call)
    for call in calls:
        if call.operation == "clip_value" and address(call.gradients) == address(found.call.gradients):
            found.add_limit(call)
        elif call.operation == "blend":
            found.add_average(call)
    _check_order(calls, found)
    return found


def _check_order(calls: Sequence[Call], found: StepUpdate) -> None:
    kinds = dict.fromkeys(_GRADIENTS, "gradient") | {"weight_penalty": "weight_penalty"}
    order = [found.kinds.get(id(call), kinds.get(call.operation)) for call in calls]
    places = [_ORDER.index(kind) for kind in order if kind is not None]
    if places != sorted(places):
        raise UnsupportedStepError("gradients are changed in another order")
    if any(call.counter is not found.call.counter for call in calls if "counter" in call.arguments):
        raise UnsupportedStepError("the step has several counters")


def _follows(before: Call, after: Call) -> bool:
    return all(
        _elements(before.arguments[name], after.arguments[name]) == int(before.arguments[name].size)
        for name in ("parameters", "gradients")
    )


def _elements(base: Array, array: Array) -> int:
    return (address(array) - address(base)) // int(base.itemsize)


def _same(one: object, other: object) -> bool:
    if isinstance(one, bool | int | float):
        return type(one) is type(other) and one == other
    return one is other
