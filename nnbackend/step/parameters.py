"""One flat buffer for all parameters, and the named views into it.

Gradients and optimiser slots lie in flat buffers of the same layout, so that an update is one operation and a
checkpoint a list of names.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.layers.base import Layer, Parameter

__all__ = ["Entry", "ParameterLayout", "finite_in", "initial_values", "machine_memory"]

#: Every array begins at a multiple of this many elements: 64 bytes in float32, a cache line and a vector register.
_ALIGNMENT = 16

#: Elements that can be numbered in bytes of float64.
_MOST = sys.maxsize // 8

#: Separates the stream of initial weights from the other uses of a network's seed.
_WEIGHTS_STREAM = 0


@dataclass(eq=False, repr=False)
class Entry:
    """Where one parameter lies: `offset` and `row_stride` in elements."""

    name: str
    layer: int
    parameter: Parameter
    offset: int
    row_stride: int

    @property
    def size(self) -> int:
        """Elements it takes up, padding included."""
        shape = self.parameter.shape
        return shape[0] * self.row_stride if len(shape) == 2 else self.row_stride

    def view(self, buffer: HostArray) -> HostArray:
        """Its window of a flat host buffer."""
        window = buffer[self.offset : self.offset + self.size]
        shape = self.parameter.shape
        if len(shape) == 2:
            return window.reshape(shape[0], self.row_stride)[:, : shape[1]]
        return window[: shape[0]]


class ParameterLayout:
    """The places of all parameters in a flat buffer.

    Parameters
    ----------
    layers : sequence of Layer
    input_shapes : sequence of tuple
        The shape of a sample before each layer.
    row_multiple : int
        Rows are padded to a multiple of this, as the backend asks.

    Raises
    ------
    InvalidInputError
        There are more than a machine could address.

    Attributes
    ----------
    entries : tuple of Entry
    size : int
        Elements of the flat buffer.
    """

    def __init__(self, layers: Sequence[Layer], input_shapes: Sequence[tuple[int, ...]], row_multiple: int) -> None:
        entries: list[Entry] = []
        offset = 0
        for index, (layer, shape) in enumerate(zip(layers, input_shapes, strict=True)):
            for parameter in layer.parameters(shape):
                stride = _round_up(parameter.shape[-1], row_multiple)
                entry = Entry(f"layers.{index}.{parameter.name}", index, parameter, offset, stride)
                entries.append(entry)
                offset = _round_up(offset + entry.size, _ALIGNMENT)
                if offset > _MOST:
                    raise InvalidInputError(
                        f"{entry.name} of shape {parameter.shape} is larger than any memory; give fewer units"
                    )
        self.entries = tuple(entries)
        self.size = max(offset, 1)

    @property
    def count(self) -> int:
        """Number of parameters, padding not counted."""
        return sum(math.prod(entry.parameter.shape) for entry in self.entries)

    def check_fits(self, dtype: np.dtype[Any]) -> None:
        """Refuse more than this machine could hold: a system that promises more would kill the process halfway.

        Raises
        ------
        InvalidInputError
            The parameters cannot fit into this machine's memory.
        """
        size = self.size * dtype.itemsize
        if size <= machine_memory():
            return
        largest = max(self.entries, key=lambda entry: entry.size)
        raise InvalidInputError(
            f"the network's {self.count:,} parameters take {size / 2**30:,.1f} GiB of memory, more than there is; the "
            f"largest is {largest.name} of shape {largest.parameter.shape}: give fewer units"
        )

    @property
    def regularised(self) -> tuple[Entry, ...]:
        """The parameters with an L1 or L2 penalty."""
        return tuple(entry for entry in self.entries if entry.parameter.l1 or entry.parameter.l2)

    def penalty(self, values: Mapping[str, HostArray]) -> float:
        """The value of all penalties for these weights, in float64."""
        total = 0.0
        for entry in self.regularised:
            weight = values[entry.name].astype(np.float64)
            total += entry.parameter.l1 * float(np.abs(weight).sum())
            total += entry.parameter.l2 / 2 * float(np.square(weight).sum())
        return total

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes, in order."""
        return {entry.name: entry.parameter.shape for entry in self.entries}

    def device_views(self, backend: Backend, buffer: Array) -> dict[str, Array]:
        """The named windows of a flat device buffer."""
        return {
            entry.name: backend.view(buffer, entry.offset, entry.parameter.shape, entry.row_stride)
            for entry in self.entries
        }

    def pack(self, values: Mapping[str, HostArray], dtype: npt.DTypeLike) -> HostArray:
        """Named arrays into a flat host buffer, padding zero."""
        buffer = np.zeros(self.size, dtype)
        for entry in self.entries:
            entry.view(buffer)[...] = values[entry.name]
        return buffer

    def unpack(self, buffer: HostArray) -> dict[str, HostArray]:
        """A flat host buffer as named, contiguous copies."""
        return {entry.name: np.array(entry.view(buffer), order="C", copy=True) for entry in self.entries}

    def check(self, values: Mapping[str, Any], dtype: npt.DTypeLike) -> dict[str, HostArray]:
        """Weights from a caller, in the network's dtype: all there, none unknown, right shapes, finite.

        Raises
        ------
        InvalidInputError
            Anything else; the message names the array.
        """
        if not isinstance(values, Mapping):
            raise InvalidInputError(f"weights must be a dict of arrays by name, received {type(values).__name__}")
        shapes = self.shapes()
        for name in values:
            if name not in shapes:
                raise UnknownNameError("parameter", name, shapes)
        missing = [name for name in shapes if name not in values]
        if missing:
            raise InvalidInputError(f"weights are missing: {', '.join(missing)}")
        checked: dict[str, HostArray] = {}
        for name, shape in shapes.items():
            array = as_host_array(name, values[name])
            if array.shape != shape:
                raise InvalidInputError(f"{name} must have shape {shape}, received {array.shape}")
            checked[name] = finite_in(name, array, dtype)
        return checked


def initial_values(layout: ParameterLayout, seed: int, dtype: npt.DTypeLike) -> dict[str, HostArray]:
    """The first weights: each parameter draws from a stream of its own, so a layer more at the end changes no other."""
    values: dict[str, HostArray] = {}
    for place, entry in enumerate(layout.entries):
        generator = np.random.Generator(np.random.Philox(key=[seed, (_WEIGHTS_STREAM << 32) + place]))
        drawn = entry.parameter.initializer.sample(generator, entry.parameter.shape)
        values[entry.name] = finite_in(entry.name, drawn, dtype)
    return values


def machine_memory() -> int:
    """Bytes of memory that this machine has; more than can be asked for where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


def finite_in(name: str, array: HostArray, dtype: npt.DTypeLike) -> HostArray:
    """`array` in `dtype`, if all of it is finite there."""
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if not np.isfinite(converted).all():
        what = f"values beyond the range of {converted.dtype}" if np.isfinite(array).all() else "NaN or infinity"
        raise InvalidInputError(f"{name} holds {what}")
    return converted


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
