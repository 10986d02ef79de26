"""Runs one operation on a backend and on the reference, and compares every array that took part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, Backend, HostArray
from nnbackend.backends.numpy import NumpyBackend

__all__ = ["Lab", "Shape"]

#: Largest difference allowed, as a share of the largest value of the array.
_TOLERANCES = {"float32": 2e-5, "float64": 1e-11}

#: Rounding is relative to what went in, about 1, where values of that size cancelled: such as 1 - tanh(z)^2.
_SMALLEST = 1e-2

_REFERENCE = NumpyBackend()


@dataclass(frozen=True)
class Shape:
    """Sizes of a case: rows of the batch, inputs and outputs of a layer."""

    rows: int
    inputs: int
    outputs: int


class Lab:
    """Arrays for one case, and the comparison.

    Parameters
    ----------
    backend : Backend
        To be examined.
    dtype : "float32" or "float64"
    shape : Shape
    seed : int
        Of the case's numbers.
    """

    def __init__(self, backend: Backend, dtype: str, shape: Shape, seed: int = 0) -> None:
        self.backend = backend
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self._generator = np.random.default_rng(seed)
        self._tolerance = _TOLERANCES[dtype]

    # ---- numbers -------------------------------------------------------------------------------------------

    def normal(self, *shape: int, scale: float = 1.0) -> HostArray:
        """Normal numbers of the dtype under test."""
        values: HostArray = (self._generator.normal(size=shape) * scale).astype(self.dtype)
        return values

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> HostArray:
        """Uniform numbers of the dtype under test."""
        values: HostArray = self._generator.uniform(low, high, shape).astype(self.dtype)
        return values

    def integers(self, high: int, *shape: int, dtype: npt.DTypeLike = np.int32) -> HostArray:
        """Integers from 0 to `high` - 1."""
        values: HostArray = self._generator.integers(0, high, shape).astype(dtype)
        return values

    def order(self, count: int) -> HostArray:
        """A permutation."""
        return self._generator.permutation(count).astype(np.int64)

    def blank(self, *shape: int) -> HostArray:
        """Where something is to be written: full of a value that nothing computes."""
        return np.full(shape, 1234.5, self.dtype)

    # ---- running -------------------------------------------------------------------------------------------

    def device(self, array: HostArray) -> Array:
        """`array` on the device, its rows padded as the backend asks; the padding holds zeros."""
        return self._place(array)[0]

    def _place(self, array: HostArray) -> tuple[Array, Array | None]:
        """`array` on the device, and the flat buffer it is a window of if its rows are padded."""
        multiple = self.backend.row_multiple
        if array.ndim != 2 or multiple == 1:
            return self.backend.from_host(array), None
        rows, columns = array.shape
        stride = -(-columns // multiple) * multiple
        padded = np.zeros((rows, stride), array.dtype)
        padded[:, :columns] = array
        buffer = self.backend.from_host(padded.reshape(-1))
        return self.backend.view(buffer, 0, array.shape, stride), buffer

    def run(self, operation: str, *arguments: Any, repeats: int = 1) -> list[HostArray]:
        """Call an operation on the backend and on the reference with the same arguments, and compare.

        The same host array given twice becomes the same device array: that is how aliasing is tried.

        Returns
        -------
        list of the arrays as the backend left them, in the order of the arguments

        Raises
        ------
        AssertionError
            An array differs by more than the tolerance, or its padding was written; the message tells which and where.
        """
        devices: dict[int, Array] = {}
        buffers: dict[int, Array | None] = {}
        references: dict[int, HostArray] = {}
        for argument in arguments:
            if isinstance(argument, np.ndarray) and id(argument) not in devices:
                devices[id(argument)], buffers[id(argument)] = self._place(argument)
                exact = argument.astype(np.float64) if argument.dtype.kind == "f" else argument.copy()
                references[id(argument)] = exact
        for _ in range(repeats):
            getattr(self.backend, operation)(*(devices.get(id(value), value) for value in arguments))
            getattr(_REFERENCE, operation)(*(references.get(id(value), value) for value in arguments))
        results: list[HostArray] = []
        for place, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                result = self.backend.to_host(devices[id(argument)])
                assert result.dtype == argument.dtype, f"argument {place}: dtype became {result.dtype}"
                self.compare(f"{operation}, argument {place}", result, references[id(argument)])
                results.append(result)
                buffer = buffers[id(argument)]
                if buffer is not None:
                    padding = self.backend.to_host(buffer).reshape(len(argument), -1)[:, argument.shape[1] :]
                    assert not padding.any(), f"{operation}, argument {place}: its padding was written"
        return results

    def compare(self, what: str, result: HostArray, expected: HostArray) -> None:
        """Fail unless two arrays agree within the tolerance of the dtype; NaN agrees with NaN."""
        assert result.shape == expected.shape, f"{what}: shape {result.shape}, expected {expected.shape}"
        if expected.dtype.kind != "f":
            assert np.array_equal(result, expected), f"{what}: {result!r}, expected {expected!r}"
            return
        finite = np.isfinite(expected)
        largest = float(np.abs(expected[finite]).max(initial=_SMALLEST))
        close = np.isclose(result, expected, rtol=0, atol=self._tolerance * largest, equal_nan=True)
        if not close.all():
            where = tuple(int(index) for index in np.argwhere(~close)[0])
            raise AssertionError(
                f"{what}: {int((~close).sum())} of {close.size} values differ; at {where} it is {result[where]!r}, "
                f"expected {expected[where]!r}"
            )
