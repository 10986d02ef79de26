"""Run an operation on a backend and on the reference, and compare all arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import OPERATIONS, Array, Backend, HostArray
from nnbackend.backends.numpy import NumpyBackend

__all__ = ["CASES", "Lab", "Shape", "case"]

#: Largest difference allowed, relative to the largest value of the array.
_TOLERANCES = {"float32": 2e-5, "float64": 1e-11}

#: Lower bound of that largest value: where values of about 1 cancel, as in 1 - tanh(z)^2, rounding errors are relative
#: to the operands.
_SMALLEST = 1e-2

_REFERENCE = NumpyBackend()


@dataclass(frozen=True)
class Shape:
    """Sizes of a case: rows of the batch, inputs and outputs of a layer."""

    rows: int
    inputs: int
    outputs: int


class Lab:
    """Makes arrays for a case and compares the results.

    Parameters
    ----------
    backend : Backend
        The backend under test.
    dtype : "float32" or "float64"
    shape : Shape
    seed : int
        Seed of the random numbers.
    """

    def __init__(self, backend: Backend, dtype: str, shape: Shape, seed: int = 0) -> None:
        self.backend = backend
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self._generator = np.random.default_rng(seed)
        #: Largest difference allowed, relative to the largest value of an array.
        self.tolerance = _TOLERANCES[dtype]

    # ---- numbers -------------------------------------------------------------------------------------------

    def normal(self, *shape: int, scale: float = 1.0) -> HostArray:
        """Normally distributed numbers of the dtype under test."""
        values: HostArray = (self._generator.normal(size=shape) * scale).astype(self.dtype)
        return values

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> HostArray:
        """Uniformly distributed numbers of the dtype under test."""
        values: HostArray = self._generator.uniform(low, high, shape).astype(self.dtype)
        return values

    def integers(self, high: int, *shape: int, dtype: npt.DTypeLike = np.int32) -> HostArray:
        """Integers from 0 to `high` - 1."""
        values: HostArray = self._generator.integers(0, high, shape).astype(dtype)
        return values

    def order(self, count: int) -> HostArray:
        """A random permutation of 0, ..., `count` - 1."""
        return self._generator.permutation(count).astype(np.int64)

    def blank(self, *shape: int) -> HostArray:
        """An output array, filled with a value that no operation computes."""
        return np.full(shape, 1234.5, self.dtype)

    # ---- running -------------------------------------------------------------------------------------------

    def device(self, array: HostArray) -> Array:
        """`array` on the device, its rows padded with zeros as the backend requires."""
        return self._place(array, array.ndim == 2)[0]

    def _place(self, array: HostArray, padded_rows: bool) -> tuple[Array, Array | None]:
        """`array` on the device and, if its rows are padded, the flat buffer that contains it."""
        multiple = self.backend.row_multiple
        if not padded_rows or multiple == 1:
            return self.backend.from_host(array), None
        *leading, columns = array.shape
        stride = -(-columns // multiple) * multiple
        padded = np.zeros((*leading, stride), array.dtype)
        padded[..., :columns] = array
        buffer = self.backend.from_host(padded.reshape(-1))
        return self.backend.view(buffer, 0, array.shape, stride), buffer

    def run(self, operation: str, *arguments: Any, repeats: int = 1, scale: float = 0.0) -> list[HostArray]:
        """Call an operation with the same arguments on the backend and on the reference, and compare all arrays.

        A host array given twice becomes one device array, to test aliasing. Differences are relative to the largest
        value of an array, or to `scale` if that is larger: a factor of a derivative may be a small difference of large
        numbers.

        Returns
        -------
        list of the backend's arrays after the call, in the order of the arguments

        Raises
        ------
        AssertionError
            An array differs by more than the tolerance, or its padding was overwritten; the message says where.
        """
        devices: dict[int, Array] = {}
        buffers: dict[int, Array | None] = {}
        references: dict[int, HostArray] = {}
        declared = OPERATIONS[operation]
        for place, argument in zip(declared.arguments.values(), arguments, strict=False):
            if isinstance(argument, np.ndarray) and id(argument) not in devices:
                # Of arrays with more axes, only parameters are padded: those without a row for each sample.
                padded = argument.ndim == 2 or (argument.ndim > 2 and "rows" not in place.shapes[0])
                devices[id(argument)], buffers[id(argument)] = self._place(argument, padded)
                exact = argument.astype(np.float64) if argument.dtype.kind == "f" else argument.copy()
                references[id(argument)] = exact
        declared.check(declared.bind([devices.get(id(value), value) for value in arguments], {}))
        for _ in range(repeats):
            getattr(self.backend, operation)(*(devices.get(id(value), value) for value in arguments))
            getattr(_REFERENCE, operation)(*(references.get(id(value), value) for value in arguments))
        results: list[HostArray] = []
        for name, argument in zip(declared.arguments, arguments, strict=False):
            if isinstance(argument, np.ndarray):
                result = self.backend.to_host(devices[id(argument)])
                assert result.dtype == argument.dtype, f"{operation}, {name}: dtype became {result.dtype}"
                self.compare(f"{operation}, {name}", result, references[id(argument)], scale)
                results.append(result)
                buffer = buffers[id(argument)]
                if buffer is not None:
                    padding = self.backend.to_host(buffer).reshape(*argument.shape[:-1], -1)[..., argument.shape[-1] :]
                    assert not padding.any(), f"{operation}, {name}: its padding was written"
        return results

    def compare(self, what: str, result: HostArray, expected: HostArray, scale: float = 0.0) -> None:
        """Fail unless two arrays agree within the tolerance of the dtype; NaN equals NaN."""
        assert result.shape == expected.shape, f"{what}: shape {result.shape}, expected {expected.shape}"
        if expected.dtype.kind != "f":
            assert np.array_equal(result, expected), f"{what}: {result!r}, expected {expected!r}"
            return
        finite = np.isfinite(expected)
        largest = float(np.abs(expected[finite]).max(initial=max(scale, _SMALLEST)))
        close = np.isclose(result, expected, rtol=0, atol=self.tolerance * largest, equal_nan=True)
        if not close.all():
            where = tuple(int(index) for index in np.argwhere(~close)[0])
            raise AssertionError(
                f"{what}: {int((~close).sum())} of {close.size} values differ; at {where} received {result[where]!r}, "
                f"expected {expected[where]!r}"
            )


#: Name -> case. A case runs operations in a lab and fails by raising AssertionError.
CASES: dict[str, Callable[[Lab], None]] = {}


def case(function: Callable[[Lab], None]) -> Callable[[Lab], None]:
    """Add a case to the acceptance suite."""
    CASES[function.__name__] = function
    return function
