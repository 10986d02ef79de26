"""The backend for every library that follows the Python array API standard, has in-place writes, and views."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.array_api.augmentation import Augmentation
from nnbackend.backends.array_api.dense import DenseOperations
from nnbackend.backends.array_api.executor import Replaced, StepExecutor, shared_dropout_masks
from nnbackend.backends.array_api.host_values import HostValues, Kept
from nnbackend.backends.array_api.images import ImageWindows
from nnbackend.backends.array_api.library import examine
from nnbackend.backends.array_api.normalization import Normalization
from nnbackend.backends.array_api.tables import Tables
from nnbackend.backends.array_api.training import TrainingLosses
from nnbackend.backends.array_api.updates import UpdateOperations
from nnbackend.backends.contract import Array, Backend, Call, Executor, HostArray
from nnbackend.errors import InvalidInputError

__all__ = ["ArrayApiBackend"]


class ArrayApiBackend(
    DenseOperations, UpdateOperations, TrainingLosses, ImageWindows, Normalization, Tables, Augmentation, Backend
):
    """A backend on any library that follows the Python array API standard.

    Every operation is written in terms of the standard, with the library's own products. The library must write in
    place (``array[...] = values``), its slices must be views, and its int64 numbers must wrap around; this is tried
    when the backend is made. Libraries such as JAX, whose arrays cannot be written, are refused.

    Parameters
    ----------
    namespace : module
        The library, such as ``cupy`` or ``array_api_strict``. One that does not follow the standard by itself is used
        through array-api-compat, which the extra ``array-api`` installs.
    device : object, optional
        In the library's own terms. Default: the library's default device.

    Attributes
    ----------
    library : Library
        What was found out about the library.

    Raises
    ------
    BackendUnavailableError
        The library lacks something; the message says what.
    """

    name = "array-api"

    def __init__(self, namespace: Any, device: Any = None) -> None:
        self.library = examine(namespace, device)
        self.xp = xp = self.library.xp
        # The class has a name for all, the object that of its library.
        self.name = self.library.name  # type: ignore[misc]
        self.device = self.library.name if device is None else f"{self.library.name} on {device}"
        self.real_dtypes = ("float32", "float64") if self.library.has_float64 else ("float32",)
        self.wide = xp.float64 if self.library.has_float64 else xp.float32
        self._dtypes = {name: getattr(xp, name) for name in ("float32", "float64", "int32", "int64", "uint8")}
        self._host = HostValues(
            self._shared if self.library.shares_memory else self.to_host, self.library.shares_memory
        )
        self._pending = []

    # ---- memory --------------------------------------------------------------------------------------------

    def _placed(self, dtype: npt.DTypeLike) -> dict[str, Any]:
        """The dtype and the device of an array; float64 is on the host if the device does not have it."""
        name = np.dtype(dtype).name
        return {
            "dtype": self._dtypes[name],
            "device": self.library.host if name == "float64" else self.library.device,
        }

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return self.xp.zeros(shape, **self._placed(dtype))

    def from_host(self, array: HostArray) -> Array:
        # NumPy's copy is contiguous and can be written, which some libraries ask for.
        return self.xp.asarray(np.array(array, order="C"), copy=True, **self._placed(array.dtype))

    def write(self, array: HostArray, out: Array) -> None:
        if math.prod(out.shape):
            out[...] = self.from_host(array)
        self._host.written(out, array)

    def to_host(self, array: Array) -> HostArray:
        self._settle()
        return np.array(self._shared(array), order="C", copy=True)

    def _shared(self, array: Array) -> HostArray:
        """The array as a NumPy array, in its own memory if possible."""
        if self.library.shares_memory:
            return np.from_dlpack(array)
        return np.from_dlpack(array, device="cpu")

    def copy(self, source: Array, out: Array) -> None:
        out[...] = source
        self._host.copied(out)

    def synchronize(self) -> None:
        self._settle()

    def view(self, buffer: Array, offset: int, shape: tuple[int, ...], row_stride: int | None = None) -> Array:
        *leading, columns = shape
        stride = columns if row_stride is None else row_stride
        window = buffer[offset : offset + math.prod(leading) * stride]
        return self.xp.reshape(window, (*leading, stride), copy=False)[..., :columns]

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        try:
            return self.xp.reshape(array, shape, copy=False)
        except (ValueError, RuntimeError, AttributeError) as error:
            text = f"an array of shape {tuple(array.shape)} has no view of shape {shape}"
            raise InvalidInputError(text) from error

    # ---- float64 on devices without it -----------------------------------------------------------------------

    def _settle(self) -> None:
        """Write the values that were meant for arrays in host memory."""
        pending, self._pending = self._pending, []
        for out, index, value in pending:
            out[index] = self.xp.astype(self._moved(value, self.library.host), out.dtype)

    def _latest(self, array: Array) -> Array:
        """The value of a float64 array with one element, on the device."""
        for out, _, value in reversed(self._pending):
            if out is array:
                return value
        return self._on_the_device(array[0])

    def _on_the_device(self, array: Array) -> Array:
        """A float64 array on the device, in `wide`."""
        if self.library.has_float64:
            return array
        return self._moved(self.xp.astype(array, self.wide), self.library.device)

    def _moved(self, array: Array, device: Any) -> Array:
        """The array on another device."""
        if hasattr(array, "to_device"):
            return array.to_device(device)
        from array_api_compat import to_device

        return to_device(array, device)

    # ---- copies and pickles ----------------------------------------------------------------------------------

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A backend is made again where it is unpickled, with the module of that name."""
        return self._requested or (_made_again, (type(self), self.xp.__name__, self.library.device))

    # ---- running a recorded step ---------------------------------------------------------------------------

    def plain_executor(self, calls: Sequence[Call]) -> Executor:
        return StepExecutor(self, calls)

    def keep(self, array: Array) -> Kept:
        """Keep the values of an array that operations read as numbers in host memory."""
        return self._host.keep(array)

    def replaced(self, calls: Sequence[Call]) -> Replaced:
        """Calls of a step that share results with others, by their places; see `StepExecutor`."""
        return shared_dropout_masks(self, calls)


def _made_again(kind: type[ArrayApiBackend], namespace: str, device: Any) -> ArrayApiBackend:
    return kind(importlib.import_module(namespace), device)
