"""The executor of a recorded step: the plain one, with numbers in host memory and results that calls share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nnbackend.backends.arrays import Array
from nnbackend.backends.declaration import Call
from nnbackend.backends.executor import PlainExecutor

__all__ = ["StepExecutor", "shared_dropout_masks"]

#: For each call that runs in another way, by its place: the function, which takes the arguments of the operation.
Replaced = dict[int, Callable[..., None]]


class StepExecutor(PlainExecutor):
    """Calls the operations one by one.

    Parameters
    ----------
    backend : ArrayApiBackend
    calls : sequence of Call
    """

    name = "plain"

    def __init__(self, backend: Any, calls: Sequence[Call]) -> None:
        super().__init__(backend, calls, f"{backend.library.name} runs one operation after another")
        for place, function in backend.replaced(calls).items():
            self._bound[place] = function, self._bound[place][1]
        self._kept = [backend.keep(array) for call in calls for array in _read_as_numbers(call)]


def _read_as_numbers(call: Call) -> list[Array]:
    """The arrays of a call that operations read on the host: counters, a number for each step, and chains."""
    if call.declaration is None:
        return []
    named = call.declaration.arguments.items()
    names = [name for name, each in named if name in ("counter", "chain") or each.shapes[:1] == (("steps",),)]
    return [call.arguments[name] for name in names if call.arguments.get(name) is not None]


class _Mask:
    """The mask of one dropout layer in one step."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._mask: Array | None = None

    def first(
        self, x: Array, rate: float, seed: int, stream: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        self._mask = self._backend.dropout_mask(x, rate, seed, stream, counter, first_row)
        self._backend.multiply(x, self._mask, out)

    def again(
        self, x: Array, rate: float, seed: int, stream: int, counter: Array, out: Array, first_row: int = 0
    ) -> None:
        self._backend.multiply(x, self._mask, out)


def shared_dropout_masks(backend: Any, calls: Sequence[Call]) -> Replaced:
    """Draw the mask of a dropout layer once: its gradient is multiplied by the same one."""
    masks: dict[Any, list[int]] = {}
    for place, call in enumerate(calls):
        if call.operation == "dropout":
            numbers = call.rate, call.seed, call.stream, call.first_row, tuple(call.x.shape), id(call.counter)
            masks.setdefault(numbers, []).append(place)
    replaced: Replaced = {}
    for first, *others in masks.values():
        mask = _Mask(backend)
        replaced[first] = mask.first
        replaced |= dict.fromkeys(others, mask.again)
    return replaced
