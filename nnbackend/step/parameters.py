"""A flat buffer for all parameters and state, and named views of it.

Gradients and optimiser slots are flat buffers with the layout of the part that is trained, so an update is a single
operation, and a checkpoint is a list of named arrays.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.data.inputs import as_host_array
from nnbackend.errors import InvalidInputError, UnknownNameError
from nnbackend.layers import Layer, Parameter, layer_nodes
from nnbackend.support.fork_lock import cached_property
from nnbackend.support.memory import machine_memory

__all__ = ["Entry", "Layout", "ParameterLayout", "finite_in", "initial_values"]

#: Every array starts at a multiple of this many elements: 64 bytes in float32, the size of a cache line and a vector
#: register.
_ALIGNMENT = 16

#: Maximum number of float64 elements whose bytes can be addressed.
_MOST = sys.maxsize // 8

#: Separates the stream of initial weights from the other uses of a network's seed.
_WEIGHTS_STREAM = 0


@dataclass(eq=False, repr=False)
class Entry:
    """The position of one array of the network in a flat buffer.

    Attributes
    ----------
    name : str
        ``"layers.0.weight"``.
    layer : int
        Position in the network's list of its layer, or of the one that contains that layer.
    parameter : Parameter
    trainable : bool
        Whether the optimiser updates it: a parameter of a layer that is not frozen.
    rate_factor : float
        Of the learning rate.
    row_stride : int
        Elements from one row to the next, where a row is the last axis.
    offset : int
        Position of its first element.
    """

    name: str
    layer: int
    parameter: Parameter
    trainable: bool
    rate_factor: float
    row_stride: int
    offset: int = 0

    @property
    def size(self) -> int:
        """Number of elements, including padding."""
        return math.prod(self.parameter.shape[:-1]) * self.row_stride

    def view(self, buffer: HostArray) -> HostArray:
        """Its view of a flat host buffer."""
        *leading, columns = self.parameter.shape
        window = buffer[self.offset : self.offset + self.size]
        return window.reshape(*leading, self.row_stride)[..., :columns]


class Layout:
    """Arrays by name in a flat buffer.

    Attributes
    ----------
    entries : tuple of Entry
        In the order of the layers.
    size : int
        Elements of the buffer.
    """

    def __init__(self, entries: Sequence[Entry], size: int) -> None:
        self.entries = tuple(entries)
        self.size = size

    @property
    def count(self) -> int:
        """Number of elements, without padding."""
        return sum(math.prod(entry.parameter.shape) for entry in self.entries)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes, in order."""
        return {entry.name: entry.parameter.shape for entry in self.entries}

    def device_views(self, backend: Backend, buffer: Array) -> dict[str, Array]:
        """Named views of a flat device buffer."""
        return {
            entry.name: backend.view(buffer, entry.offset, entry.parameter.shape, entry.row_stride)
            for entry in self.entries
        }

    def pack(self, values: Mapping[str, HostArray], dtype: npt.DTypeLike) -> HostArray:
        """Pack named arrays into a flat host buffer, with padding of zeros."""
        buffer = np.zeros(self.size, dtype)
        for entry in self.entries:
            entry.view(buffer)[...] = values[entry.name]
        return buffer

    def unpack(self, buffer: HostArray) -> dict[str, HostArray]:
        """Unpack a flat host buffer into named, contiguous copies."""
        return {entry.name: np.array(entry.view(buffer), order="C", copy=True) for entry in self.entries}

    def check(self, values: Mapping[str, Any], dtype: npt.DTypeLike, partial: bool = False) -> dict[str, HostArray]:
        """Check a caller's arrays and convert them to the network's dtype: none missing (unless `partial`) or unknown,
        correct shapes, finite, not negative where a parameter is declared so.

        Raises
        ------
        InvalidInputError
            A check failed; the message names the array.
        """
        if not isinstance(values, Mapping):
            raise InvalidInputError(f"weights must be a dict of arrays by name, received {type(values).__name__}")
        shapes = self.shapes()
        for name in values:
            if name not in shapes:
                raise UnknownNameError("parameter", name, shapes)
        missing = [name for name in shapes if name not in values]
        if missing and not partial:
            raise InvalidInputError(
                f"weights are missing: {', '.join(missing)}; to keep those that are not given, give partial=True"
            )
        checked: dict[str, HostArray] = {}
        parameters = {entry.name: entry.parameter for entry in self.entries}
        for name in (name for name in shapes if name in values):
            shape = shapes[name]
            array = as_host_array(name, values[name])
            if array.shape != shape:
                raise InvalidInputError(f"{name} must have shape {shape}, received {array.shape}")
            checked[name] = finite_in(name, array, dtype)
            _check_sign(name, parameters[name], checked[name])
        return checked


class ParameterLayout(Layout):
    """The layout of all parameters and state of a network in one flat buffer.

    Entries that are trained come first, in the order of the layers; state and the parameters of frozen layers follow
    in the same order. Optimisers, penalties and sums over ranks use only the first part.

    Parameters
    ----------
    layers : sequence of Layer
    input_shapes : sequence of tuple
        The shape of a sample before each layer.
    row_multiple : int
        Rows are padded to a multiple of this, as the backend requires.

    Raises
    ------
    InvalidInputError
        There are more elements than can be addressed, or nested layers are incompatible.

    Attributes
    ----------
    nodes : tuple of LayerNode
        The layers at that time: which were frozen, and the shape of a sample before and after each.
    trainable : Layout
        The entries that are trained. Gradients and the slots of optimisers are buffers of this layout.
    """

    def __init__(self, layers: Sequence[Layer], input_shapes: Sequence[tuple[int, ...]], row_multiple: int) -> None:
        self.nodes = layer_nodes(layers, input_shapes)
        entries = [
            Entry(
                f"{node.name}.{parameter.name}",
                node.index,
                parameter,
                node.trainable and parameter.trainable,
                node.rate_factor * parameter.learning_rate_factor,
                _round_up(parameter.shape[-1], row_multiple),
            )
            for top in self.nodes
            for node in top.walk()
            for parameter in node.parameters
        ]
        trained = [entry for entry in entries if entry.trainable]
        others = [entry for entry in entries if not entry.trainable]
        # Buffers are never empty, so that networks without parameters are recorded like all others.
        trainable_size = max(_place(trained, 0), 1)
        size = _place(others, _round_up(trainable_size, _ALIGNMENT)) if others else trainable_size
        super().__init__(entries, size)
        self.trainable = Layout(trained, trainable_size)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample before the first layer."""
        return self.nodes[0].input_shape

    @property
    def trainable_size(self) -> int:
        """Elements of the trained part, including padding."""
        return self.trainable.size

    @property
    def outdated(self) -> bool:
        """Whether layers have been frozen or unfrozen since, or have other learning-rate factors."""
        return any(node.outdated() for node in self.nodes)

    @cached_property
    def rate_parts(self) -> tuple[tuple[float, int, int], ...]:
        """Parts of the trained buffer with one learning-rate factor each: (factor, first element, last + 1)."""
        entries = self.trainable.entries
        starts = [
            (entry.rate_factor, entry.offset)
            for before, entry in zip([None, *entries], entries, strict=False)
            if before is None or before.rate_factor != entry.rate_factor
        ]
        # A network without parameters is recorded like all others.
        starts = starts or [(1.0, 0)]
        ends = [*(begin for _, begin in starts[1:]), self.trainable_size]
        return tuple((factor, begin, end) for (factor, begin), end in zip(starts, ends, strict=True))

    def check_fits(self, dtype: np.dtype[Any]) -> None:
        """Reject more than this machine's memory, because a system that overcommits memory would kill the process
        later.

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

    @cached_property
    def regularised(self) -> tuple[Entry, ...]:
        """The trained parameters with an L1 or L2 penalty."""
        return tuple(entry for entry in self.trainable.entries if entry.parameter.l1 or entry.parameter.l2)

    def penalty(self, values: Mapping[str, HostArray]) -> float:
        """The sum of all penalties for these weights, in float64."""
        total = 0.0
        for entry in self.regularised:
            weight = values[entry.name].astype(np.float64)
            total += entry.parameter.l1 * float(np.abs(weight).sum())
            total += entry.parameter.l2 / 2 * float(np.square(weight).sum())
        return total


def _place(entries: Sequence[Entry], offset: int) -> int:
    """Place the entries in the buffer from `offset` on; returns the next free offset."""
    for entry in entries:
        entry.offset = offset
        offset = _round_up(offset + entry.size, _ALIGNMENT)
        if offset > _MOST:
            raise InvalidInputError(
                f"{entry.name} of shape {entry.parameter.shape} is larger than any memory; give fewer units"
            )
    return offset


def initial_values(layout: ParameterLayout, seed: int, dtype: npt.DTypeLike) -> dict[str, HostArray]:
    """The initial values of parameters and state.

    Each has its own random stream, numbered in the order of the layers. Adding a layer at the end, or freezing one,
    does not change the values of other layers.
    """
    values: dict[str, HostArray] = {}
    for place, entry in enumerate(layout.entries):
        generator = np.random.Generator(np.random.Philox(key=[seed, (_WEIGHTS_STREAM << 32) + place]))
        drawn = entry.parameter.initializer.sample(generator, entry.parameter.shape)
        values[entry.name] = finite_in(entry.name, drawn, dtype)
        _check_sign(entry.name, entry.parameter, values[entry.name])
    return values


def _check_sign(name: str, parameter: Parameter, values: HostArray) -> None:
    """Refuse values below 0, or numbers that are 0 in the network's dtype, of a parameter that must not have them."""
    if (parameter.nonnegative or parameter.positive) and (values < 0).any():
        raise InvalidInputError(f"{name} must not be negative, but holds {values.min():g}")
    if parameter.positive and (values == 0).any():
        raise InvalidInputError(
            f"{name} must be above 0 in {values.dtype}, but is 0 at {int(np.argmin(values))}; give 1 for a feature "
            "that is constant, and use larger units or dtype='float64' for one with tiny numbers"
        )


def finite_in(name: str, array: HostArray, dtype: npt.DTypeLike) -> HostArray:
    """Convert `array` to `dtype`, and check that all values are finite."""
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
    if not np.isfinite(converted).all():
        what = f"values beyond the range of {converted.dtype}" if np.isfinite(array).all() else "NaN or infinity"
        raise InvalidInputError(f"{name} holds {what}")
    return converted


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
