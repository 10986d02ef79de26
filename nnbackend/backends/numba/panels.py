"""Weights that no longer change, copied once into the panels that products read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.backends.arrays import overlap, span_of
from nnbackend.backends.declaration import Call
from nnbackend.backends.numba.kinds import KINDS
from nnbackend.backends.numba.lines import Array
from nnbackend.backends.numba.program import Parts
from nnbackend.backends.numba.tile_shape import shape_for

__all__ = ["weights_in_panels"]

#: Bytes of a cache line.
_LINE = 64


def weights_in_panels(calls: Sequence[Call], constants: dict[Any, Any], parts: Parts) -> Parts:
    """The parts of a call with its product on panels, unless a call of the step writes the weight.

    Parameters
    ----------
    calls : sequence of Call
        All of the step.
    constants : dict
        Keeps the panels, by the memory of the weight, for other recordings with the same parameters.
    parts : Parts
        What a call of the step becomes.
    """
    if isinstance(parts, str):
        return parts
    return [(_on_panels(calls, constants, call), KINDS["dense_panels"]) if _applies(calls, call, kind.name)
            else (call, kind) for call, kind in parts]  # fmt: skip


def _applies(calls: Sequence[Call], call: Call, kind: str) -> bool:
    if kind != "dense":
        return False
    weight = span_of(call.weight)
    return not any(overlap(weight, span_of(array)) for other in calls for array in other.written())


def _on_panels(calls: Sequence[Call], constants: dict[Any, Any], call: Call) -> Call:
    weight, key = call.weight, span_of(call.weight)
    if key not in constants:
        constants[key] = _panels(weight, shape_for(weight.dtype).columns)
    # The line reads the shape of the weight from this array, whose memory begins with the panels.
    shaped = constants[key][: weight.size].reshape(weight.shape)
    return Call(call.operation, {**call.arguments, "weight": shaped})


def _panels(weight: Array, width: int) -> Array:
    """All panels one after the other: of each `width` columns, all rows. The last has zeros at the end of its rows."""
    inputs, outputs = weight.shape
    count = -(-outputs // width)
    memory = np.zeros(count * inputs * width + _LINE // weight.itemsize, weight.dtype)
    # Vectors then lie within cache lines.
    begin = -(memory.ctypes.data // weight.itemsize) % (_LINE // weight.itemsize)
    panels = memory[begin : begin + count * inputs * width]
    padded = np.zeros((inputs, count * width), weight.dtype)
    padded[:, :outputs] = weight
    panels.reshape(count, inputs, width)[...] = padded.reshape(inputs, count, width).transpose(1, 0, 2)
    return panels
