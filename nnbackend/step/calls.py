"""Records the calls of a step, and allocates its buffers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.arrays import span_of
from nnbackend.backends.contract import OPERATIONS, Array, Backend, Call
from nnbackend.backends.image_operations import check_implemented
from nnbackend.errors import InvalidInputError, UnknownNameError, shown
from nnbackend.step.model import Model
from nnbackend.support.checks import count

__all__ = ["Recorder", "Workspace"]


class Workspace:
    """Buffers of a step, allocated in order and reused from the first one by the next recording.

    The step for a shorter last batch requests the same buffers in the same order as the full one, and gets their first
    rows. If a layer requests other buffers for it, as a layer that treats a single row differently may, it gets new
    ones.

    Parameters
    ----------
    backend : Backend
    capacity : int
        Rows of a full batch.
    """

    def __init__(self, backend: Backend, capacity: int) -> None:
        self.backend = backend
        self._capacity = capacity
        #: In the order in which they were asked for, with the shapes and dtypes that were asked for.
        self._buffers: list[tuple[tuple[tuple[int, ...], np.dtype[Any]], Array]] = []
        self._next = 0
        #: Flat buffers with their dtypes; the first `_scratch_used` belong to the next call.
        self._scratch: list[tuple[np.dtype[Any], int, Array]] = []
        self._scratch_used = 0

    def rewind(self) -> None:
        """Start the next recording."""
        self._next = self._scratch_used = 0

    def buffer(self, rows: int, shape: tuple[int, ...], dtype: npt.DTypeLike, packed: bool = False) -> Array:
        """A (rows, *shape) buffer. With one axis, rows are padded as the backend requires, unless it must be packed."""
        if len(shape) == 1 and not packed:
            multiple, columns = self.backend.row_multiple, shape[0]
            return self._take((self._capacity, -(-columns // multiple) * multiple), dtype)[:rows, :columns]
        return self._take((self._capacity, *shape), dtype)[:rows, ...]

    def memory(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A buffer of this shape."""
        return self._take(shape, dtype)

    def _take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        wanted = shape, np.dtype(dtype)
        known = self._buffers[self._next] if self._next < len(self._buffers) else None
        if known is None or known[0] != wanted:
            known = wanted, self.backend.empty(*wanted)
            # Earlier recordings keep the buffer that this one replaces.
            self._buffers[self._next : self._next + 1] = [known]
        self._next += 1
        return known[1]

    def scratch(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Contiguous memory for exclusive use until `release_scratch`."""
        wanted, size = np.dtype(dtype), max(math.prod(shape), 1)
        for place in range(self._scratch_used, len(self._scratch)):
            kind, length, _ = self._scratch[place]
            if kind == wanted and length >= size:
                break
        else:
            place = len(self._scratch)
            self._scratch.append((wanted, size, self.backend.empty((size,), wanted)))
        used = self._scratch_used
        self._scratch[used], self._scratch[place] = self._scratch[place], self._scratch[used]
        self._scratch_used += 1
        return self.backend.view(self._scratch[used][2], 0, shape)

    def release_scratch(self) -> None:
        """Release the scratch memory after its call was recorded."""
        self._scratch_used = 0


class Recorder:
    """Records the calls of one step.

    Parameters
    ----------
    model : Model
    workspace : Workspace
        It is rewound.
    rows : int
        Rows of the batch.
    counter : (3,) int64 array
        Step in the epoch, steps of the network, steps of the optimiser.
    training : bool
    first_row, batch_rows : int
        If other ranks have rows of the batch: the number of rows before these, and the total number. Gradients and
        losses are then this step's part of those of the whole batch.

    Attributes
    ----------
    calls : list of Call
    share : float
        The fraction of the batch's rows in this step.
    gradients : dict of arrays
        Buffers for the gradients of trained parameters, by name.
    asked_gradients : set of str
        Names of the parameters whose gradients a layer requested.
    """

    def __init__(
        self,
        model: Model,
        workspace: Workspace,
        rows: int,
        counter: Array,
        training: bool,
        first_row: int = 0,
        batch_rows: int | None = None,
    ) -> None:
        workspace.rewind()
        self.first_row = first_row
        self.share = 1.0 if batch_rows is None else rows / batch_rows
        self.model = model
        self.rows = rows
        self.counter = counter
        self.training = training
        self.calls: list[Call] = []
        self.gradients: Mapping[str, Array] = {}
        self.asked_gradients: set[str] = set()
        self._passed_back: set[str] = set()
        self._workspace = workspace
        self._unread: dict[str, Array] = {}
        # By the id of an array, and the new shape. The array itself is kept, so that its id is not reused.
        self._spans: dict[int, tuple[Array, tuple[int, int] | None]] = {}
        self._reshaped: dict[tuple[int, tuple[int, ...]], tuple[Array, Array]] = {}
        self._scratch: dict[int, Array] = {}
        self._expired: dict[int, Array] = {}

    # ---- memory --------------------------------------------------------------------------------------------

    def buffer(self, *shape: int, dtype: npt.DTypeLike | None = None) -> Array:
        """A ``(rows, *shape)`` buffer; see :meth:`LayerStep.buffer`."""
        return self._workspace.buffer(self.rows, _sample("buffer", *shape), self._dtype(dtype))

    def like(self, x: Array) -> Array:
        """A buffer with the shape of `x`, padded exactly if `x` is."""
        return self._workspace.buffer(self.rows, tuple(x.shape[1:]), self.model.dtype, self._is_packed(x))

    def memory(self, *shape: int) -> Array:
        """A buffer without a batch axis; see :meth:`LayerStep.memory`."""
        return self._workspace.memory(shape, self.model.dtype)

    def constant(self, values: npt.ArrayLike) -> Array:
        """An array with these numbers, in the network's dtype, that nothing writes."""
        return self.model.backend.from_host(np.array(values, self.model.dtype))

    def input(self) -> Array:
        """The buffer for the samples of the batch."""
        return self.buffer(*self.model.layout.input_shape)

    def scratch(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        """Memory for the next call only; see :meth:`LayerStep.scratch`."""
        array = self._workspace.scratch(_sample("scratch", shape), self._dtype(dtype))
        self._scratch[id(array)] = array
        return array

    def _dtype(self, dtype: npt.DTypeLike | None) -> np.dtype[Any]:
        try:
            return self.model.dtype if dtype is None else np.dtype(dtype)
        except TypeError:
            raise InvalidInputError(f"a buffer's dtype must be one of NumPy's, received {shown(dtype)}") from None

    def gradient(self, name: str) -> Array:
        """The buffer for the gradient of the parameter with this full name; memory that is never read if it is not
        trained."""
        self.asked_gradients.add(name)
        if name in self.gradients:
            return self.gradients[name]
        if name not in self._unread:
            self._unread[name] = self.model.backend.empty(tuple(self.model.views[name].shape), self.model.dtype)
        return self._unread[name]

    def passed_back(self, name: str) -> bool:
        """Note that the backward pass of a layer is recorded; returns whether it is the first time."""
        first = name not in self._passed_back
        self._passed_back.add(name)
        return first

    # ---- views with other shapes ------------------------------------------------------------------------

    def matrix(self, x: Array) -> Array:
        """`x` as (rows, features); see :meth:`LayerStep.matrix`."""
        rows, *shape = x.shape
        return x if len(shape) == 1 else self._view(x, (rows, math.prod(shape)))

    def channels(self, x: Array) -> Array:
        """`x` as (everything before the last axis, last axis); see :meth:`LayerStep.channels`."""
        *leading, last = x.shape
        return x if len(leading) == 1 else self._view(x, (math.prod(leading), last))

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        """`x` as ``(rows, *shape)``; see :meth:`LayerStep.reshape`."""
        wanted = (int(x.shape[0]), *shape)
        if tuple(x.shape) == wanted:
            return x
        if not self._is_packed(x):
            # Copy with the identity activation, because padded rows cannot be reshaped.
            padded, x = x, self._workspace.buffer(self.rows, tuple(shape), self.model.dtype, packed=True)
            self.record("activation_forward", padded, "identity", 0.0, self.matrix(x))
            return x
        return self._view(x, wanted)

    def _view(self, x: Array, shape: tuple[int, ...]) -> Array:
        known = self._reshaped.get((id(x), shape))
        if known is None:
            known = self._reshaped[id(x), shape] = x, self.model.backend.reshape(x, shape)
        # A view of scratch memory lasts no longer than the memory.
        for scratch in (self._scratch, self._expired):
            if id(x) in scratch:
                scratch[id(known[1])] = known[1]
        return known[1]

    def is_scratch(self, x: Array) -> bool:
        """Whether `x` is scratch memory, of the next call or of an earlier one."""
        return id(x) in self._scratch or id(x) in self._expired

    def _is_packed(self, x: Array) -> bool:
        """Whether `x` has no padding; only buffers of flat samples have padding."""
        multiple = self.model.backend.row_multiple
        if len(x.shape) != 2 or x.shape[1] % multiple == 0:
            return True
        strides, itemsize = getattr(x, "strides", None), self.model.dtype.itemsize
        return strides is not None and strides[0] == x.shape[1] * itemsize

    # ---- calls ---------------------------------------------------------------------------------------------

    def record(self, operation: str, *arguments: Any, **named: Any) -> None:
        """Record an operation of the contract; see :meth:`LayerStep.record`."""
        declared = OPERATIONS.get(operation)
        if declared is None:
            raise UnknownNameError("operation (record a function of your own with call())", operation, OPERATIONS)
        bound = declared.bind(arguments, named)
        check_implemented(self.model.backend, declared)
        declared.check(bound, self.span)
        self._append(Call(operation, bound))

    def span(self, array: Array) -> tuple[int, int] | None:
        """The span of an array, found once: NumPy is slow to provide addresses."""
        known = self._spans.get(id(array))
        if known is None:
            known = self._spans[id(array)] = array, span_of(array)
        return known[1]

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Record a user-defined function; see :meth:`LayerStep.call`."""
        self._append(Call.custom(function, *arguments))

    def _append(self, call: Call) -> None:
        if self._expired and any(id(value) in self._expired for value in call.arguments.values()):
            raise InvalidInputError(
                f"{call!r} uses a scratch buffer of an earlier call; scratch() is memory for the next call only, "
                "buffer() is kept for the whole step"
            )
        self.calls.append(call)
        if self._scratch:
            self._expired |= self._scratch
            self._scratch = {}
            self._workspace.release_scratch()

    def gather(
        self, source: Array, order: Array, batch_size: int, scale: float = 1.0, dtype: npt.DTypeLike | None = None
    ) -> Array:
        """Record the gather of one minibatch of `source`; returns its output buffer, by default with the network's
        dtype."""
        out = self.buffer(*source.shape[1:], dtype=dtype)
        self.record("gather", source, order, self.counter, batch_size, scale, out)
        return out


def _sample(method: str, *shape: Any) -> tuple[int, ...]:
    """A shape, given as numbers or as one tuple."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        (shape,) = shape
    return tuple(count(f"an axis of step.{method}()", extent) for extent in shape)
