"""Calls of operations on any backend, and their comparison with the reference.

Arrays of a case are host arrays, reals in float64 with values that float32 has too; :func:`run` moves them to a backend
and brings *all* of them back, so a comparison also detects unwanted writes. The same array twice means the same device
array twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nnbackend.backends.contract import Backend
from nnbackend.backends.numpy import NumpyBackend

__all__ = ["Case", "Double", "Kernel", "assert_agrees", "run"]

_SENTINEL = 77.0
_TOLERANCE = {"float32": 3e-5, "float64": 1e-11}
_REFERENCE = NumpyBackend()


class Case(NamedTuple):
    """One call."""

    operation: str
    arguments: tuple[Any, ...]


def run(backend: Backend, case: Case, dtype: str, padding: int = 0) -> list[np.ndarray]:
    """Make the call with rows of matrices padded by `padding` elements; returns all arrays after the call."""
    placed = {id(value): _place(backend, value, dtype, padding) for value in _arrays(case)}
    arguments = [placed[id(value)][0] if isinstance(value, np.ndarray) else value for value in case.arguments]
    getattr(backend, case.operation)(*arguments)
    backend.synchronize()
    for view, buffer, stride in placed.values():
        if buffer is not None:
            gaps = backend.to_host(buffer).reshape(-1, stride)[:, view.shape[-1] :]
            assert (gaps == gaps.dtype.type(_SENTINEL)).all(), f"{case.operation} wrote into the padding"
    return [backend.to_host(placed[id(value)][0]) for value in _arrays(case)]


def assert_agrees(backend: Backend, case: Case, dtype: str, padding: int = 0) -> None:
    """Check that the backend's result agrees with NumPy in float64."""
    expected = run(_REFERENCE, case, "float64")
    actual = run(backend, case, dtype, padding)
    for place, (mine, wanted) in enumerate(zip(actual, expected, strict=True)):
        scale = max(1.0, float(np.abs(wanted).max(initial=0)))
        if scale > 1e6:  # the sentinel, which as a scale would hide any error
            np.testing.assert_array_equal(mine, wanted, err_msg=f"{case.operation}: array {place}")
            continue
        np.testing.assert_allclose(
            mine, wanted, rtol=0, atol=_TOLERANCE[dtype] * scale, err_msg=f"{case.operation}: array {place}"
        )


def _arrays(case: Case) -> Iterator[np.ndarray]:
    return (value for value in case.arguments if isinstance(value, np.ndarray))


def _place(backend: Backend, host: np.ndarray, dtype: str, padding: int) -> tuple[Any, Any, int]:
    """The array on the backend and, if its rows are padded, the buffer that it is a view of."""
    padded = padding and (host.ndim == 2 or isinstance(host, Kernel))
    real = np.dtype(dtype) if host.dtype == np.float64 and not _always_double(host) else host.dtype
    host = host.astype(real, subok=False)
    if not padded:
        return backend.from_host(host), None, 0
    stride = host.shape[-1] + padding
    buffer = backend.from_host(np.full(host.size // host.shape[-1] * stride, _SENTINEL, real))
    view = backend.view(buffer, 0, host.shape, stride)
    backend.write(host, view)
    return view, buffer, stride


class Double(np.ndarray):
    """Marks arrays that are float64 for any dtype of the network: learning rates and the trace."""


class Kernel(np.ndarray):
    """Marks the only arrays of four axes that may be padded."""


def _always_double(host: np.ndarray) -> bool:
    return isinstance(host, Double)
