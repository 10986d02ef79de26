"""Weights copied into the panels that products read, once, until they change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnbackend.backends.arrays import overlap, span_of
from nnbackend.backends.declaration import Call
from nnbackend.backends.executor import Constants
from nnbackend.backends.numba.kinds import KINDS
from nnbackend.backends.numba.lines import Array
from nnbackend.backends.numba.program import Parts
from nnbackend.backends.numba.tile_shape import shape_for

__all__ = ["WeightPanels", "fill_again"]

#: Bytes of a cache line.
_LINE = 64


class WeightPanels:
    """Makes the products of a step read their weights from panels.

    Parameters
    ----------
    calls : sequence of Call
        All of the step.
    constants : Constants
        Keeps the panels, by the memory and shape of the weight, for other recordings with the same parameters.
    x : array
        The input of the step.
    flags : (2,) int64
        The products with `x` set the first to 1 if it may hold NaN or infinity.

    Attributes
    ----------
    checks : bool
        Whether there is such a product, once the parts of all calls are known.
    """

    def __init__(self, calls: Sequence[Call], constants: Constants, x: Array, flags: Array) -> None:
        self._calls, self._constants, self._flags = calls, constants, flags
        self._input = span_of(x)
        self.checks = False

    def replace(self, parts: Parts) -> Parts:
        """The parts of a call with its product on panels, unless a call of the step writes the weight."""
        if isinstance(parts, str):
            return parts
        return [(self._on_panels(call), KINDS["dense_panels"]) if self._applies(call, kind.name) else (call, kind)
                for call, kind in parts]  # fmt: skip

    def _applies(self, call: Call, kind: str) -> bool:
        if kind != "dense":
            return False
        weight = span_of(call.weight)
        return not any(overlap(weight, span_of(array)) for other in self._calls for array in other.written())

    def _on_panels(self, call: Call) -> Call:
        weight = call.weight
        # A layer may use the same memory as matrices of several shapes.
        key = span_of(weight), weight.shape
        if key not in self._constants.values:
            self._constants.values[key] = weight, (panels := _room(weight))
            _fill(weight, panels)
        # The line reads the shape of the weight from this array, whose memory begins with the panels.
        shaped = self._constants.values[key][1][: weight.size].reshape(weight.shape)
        changed = {"weight": shaped}
        if span_of(call.x) == self._input:
            self.checks, changed["checks"] = True, self._flags.ctypes.data
        return Call(call.operation, {**call.arguments, **changed})


def fill_again(constants: Constants) -> None:
    """Copy all weights into their panels again."""
    for weight, panels in constants.values.values():
        _fill(weight, panels)


def _room(weight: Array) -> Array:
    """Memory for all panels one after the other: of each as many columns as a tile has, all rows. The last has zeros at
    the end of its rows."""
    inputs, outputs = weight.shape
    shape = shape_for(weight.dtype)
    size = (len(shape.panel_starts(outputs)) - 1) * inputs * shape.columns
    memory = np.zeros(size + _LINE // weight.itemsize, weight.dtype)
    # Vectors then lie within cache lines.
    begin = -(memory.ctypes.data // weight.itemsize) % (_LINE // weight.itemsize)
    return memory[begin : begin + size]


def _fill(weight: Array, panels: Array) -> None:
    inputs, outputs = weight.shape
    shape = shape_for(weight.dtype)
    starts = shape.panel_starts(outputs)
    for panel, begin, end in zip(panels.reshape(-1, inputs, shape.columns), starts[:-1], starts[1:], strict=True):
        panel[:, : end - begin] = weight[:, begin:end]
