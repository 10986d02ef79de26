"""The contract between a network and the backend that computes it.

A backend owns arrays and the kernels that work on them. Memory and executors are defined here, the operations in
:mod:`nnbackend.backends.operations`. A backend is independent of layers, loss objects and the training loop. A training
step is a list of :class:`Call`, each naming an operation and its buffers, so the same step runs on any backend.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy.typing as npt

from nnbackend.backends.activations import ACTIVATIONS
from nnbackend.backends.arrays import Array, HostArray, span_of
from nnbackend.backends.declaration import Call
from nnbackend.backends.executor import Executor, PlainExecutor
from nnbackend.backends.operations import OPERATIONS, Operations
from nnbackend.backends.staging import Staging, WrittenStaging
from nnbackend.errors import InvalidInputError

__all__ = ["ACTIVATIONS", "OPERATIONS", "Array", "Backend", "Call", "Executor", "HostArray", "PlainExecutor", "Staging"]


class Backend(Operations):
    """Where arrays live and the kernels that run there.

    Attributes
    ----------
    name : str
        The name used in ``backend="..."``.
    device : str
        The hardware it runs on, as readable text.
    row_multiple : int
        Rows of 2-D buffers, and of parameters, are padded to a multiple of this many elements. Padding holds zeros and
        stays zero. Buffers with more axes are contiguous. Views, files and ``get_weights()`` hide the padding.
    works_apart : bool
        Whether its executors may return before the work is done, so that the host can do other work.
    programs : int
        How many executors with the attribute `apart` may run at the same time, each on a thread of its own.
    real_dtypes : tuple of str
        The dtypes that networks may have on this device.
    takes_any_rows : bool
        Whether executors may have calls for any number of rows; see `Executor.from_rows`.
    together : int
        How many executors of the same kind may run as one, at most.
    target : str
        The CPU that its code is compiled for, if results with code for another CPU may differ in rounding; else empty.
    """

    name: ClassVar[str]
    device: str = "cpu"
    real_dtypes: tuple[str, ...] = ("float32", "float64")
    row_multiple: int = 1
    works_apart: bool = False
    programs: int = 1
    takes_any_rows: bool = False
    together: int = 1
    target: str = ""

    #: For a backend that was requested by name: the function and the arguments that request it again.
    _requested: tuple[Any, ...] | None = None

    # ---- memory --------------------------------------------------------------------------------------------

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A new contiguous device array **filled with zeros** (so that padding starts as zero)."""

    @abstractmethod
    def from_host(self, array: HostArray) -> Array:
        """A new device array with the shape, dtype and values of `array`; never shares memory with it."""

    def asarray(self, array: HostArray) -> Array:
        """`array` on the device, to be read only; without a copy if the device uses host memory."""
        return self.from_host(array)

    @abstractmethod
    def write(self, array: HostArray, out: Array) -> None:
        """Copy a host array into the device array `out` of the same shape and dtype."""

    @abstractmethod
    def to_host(self, array: Array) -> HostArray:
        """A new contiguous NumPy array with the values of a device array. Waits for pending work."""

    @abstractmethod
    def copy(self, source: Array, out: Array) -> None:
        """Copy `source` to `out`, device to device; same shape and dtype."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has finished all submitted work."""

    def free_bytes(self) -> int | None:
        """Free memory on the device; None if the device uses host memory, which can be swapped and shared."""
        return None

    def staging(self, halves: tuple[Array, Array], shape: tuple[int, ...], dtype: npt.DTypeLike) -> Staging:
        """The fastest double-buffered transfer of rows from the host to two device arrays of this shape and dtype."""
        return WrittenStaging(self.write, halves, shape, dtype)

    def view(self, buffer: Array, offset: int, shape: tuple[int, ...], row_stride: int | None = None) -> Array:
        """A view of part of a flat buffer.

        Works for arrays that slice and reshape like NumPy's; backends with other arrays override this.

        Parameters
        ----------
        buffer : 1-D array
        offset : int
            First element of the view.
        shape : tuple of ints
        row_stride : int, optional
            Elements from one row to the next, where a row is the last axis. Default: the length of the row.
        """
        *leading, columns = shape
        stride = columns if row_stride is None else row_stride
        if not leading:
            return buffer[offset : offset + columns]
        window = buffer[offset : offset + math.prod(leading) * stride].reshape(*leading, stride)
        return window if stride == columns else window[..., :columns]

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """A view of `array` with another shape.

        Works for NumPy arrays and those of the array API standard; backends with other arrays override this.

        Raises
        ------
        InvalidInputError
            That shape would require a copy.
        """
        if hasattr(array, "reshape"):
            window = array.reshape(shape)
        else:
            window = array.__array_namespace__().reshape(array, shape, copy=False)
        if span_of(window) != span_of(array):
            raise InvalidInputError(f"an array of shape {tuple(array.shape)} has no view of shape {shape}")
        return window

    # ---- running a recorded step -----------------------------------------------------------------------------

    def executor(self, calls: Sequence[Call]) -> Executor:
        """The fastest executor this backend has for a recorded step."""
        return self.plain_executor(calls)

    def plain_executor(self, calls: Sequence[Call]) -> Executor:
        """The executor that runs any step, call by call."""
        return PlainExecutor(self, calls)

    def at_most(self, threads: int) -> AbstractContextManager[None]:
        """A context in which the executors that this thread runs use no more than this number of threads, because other
        threads are running executors, too."""
        return nullcontext()

    def explain_executor(self, calls: Sequence[Call]) -> tuple[str, str]:
        """The executor's name and the reason for choosing it, without compilation that takes long."""
        executor = self.executor(calls)
        return executor.name, executor.reason

    # ---- copies and pickles ----------------------------------------------------------------------------------

    def __copy__(self) -> Backend:
        """Backends are not copied: `sklearn.base.clone` copies all parameters, and the copies share the backend."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A backend that was requested by name is requested by name again where it is unpickled."""
        return self._requested or super().__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"<nnbackend backend {self.name!r} on {self.device}>"
