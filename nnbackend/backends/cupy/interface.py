"""The interface of the CUDA runtime that the backend uses.

:class:`~nnbackend.backends.cupy.runtime.CudaRuntime` implements it with CuPy. The tests implement it on the CPU, so
that the same backend and kernels run without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nnbackend.backends.contract import Array, HostArray

__all__ = [
    "NULL",
    "Argument",
    "CaptureError",
    "Dimensions",
    "Epilogue",
    "Graph",
    "Kernel",
    "Mark",
    "Module",
    "Operands",
    "Product",
    "Runtime",
]

#: A kernel, ready to launch; an opaque type.
Kernel = Any
#: Dimensions of a grid or a block: x, y (default 1).
Dimensions = tuple[int, ...]
#: A point in the stream, such as a CUDA event; an opaque type.
Mark = Any
#: A kernel argument: a device array, or a NumPy scalar of the type that the kernel declares.
Argument = Any

#: The null pointer. None would not work: CuPy would pass no argument address to the driver.
NULL = np.uint64(0)


class CaptureError(RuntimeError):
    """The work cannot be captured in a graph, or the device does not support it; the message says why."""


class Graph(Protocol):
    """A captured graph, ready to launch."""

    def launch(self) -> None:
        """Enqueue it on the stream. It reads and writes the memory that it was captured with."""


class Product(Protocol):
    """A matrix product with an epilogue, for fixed buffers."""

    def launch(self) -> None:
        """Enqueue the product on the stream."""


@dataclass(frozen=True, eq=False)
class Operands:
    """``C = op(A) op(B)``, or ``C += op(A) op(B)``, as in cuBLAS: **column-major**, and `op` optionally transposes.

    Attributes
    ----------
    m, n, k : int
        op(A) is m x k, op(B) k x n, C m x n.
    a, b, c : device arrays of one real dtype
        Only the address of the first element and the dtype are used.
    lda, ldb, ldc : int
        Elements from one column to the next.
    adds : bool
        Whether the result is added to C.
    """

    transpose_a: bool
    transpose_b: bool
    m: int
    n: int
    k: int
    a: Array
    lda: int
    b: Array
    ldb: int
    c: Array
    ldc: int
    adds: bool = False

    def extents(self) -> tuple[tuple[int, int, int], ...]:
        """Rows, columns and leading dimension of A, B and C as stored."""
        left = (self.k, self.m) if self.transpose_a else (self.m, self.k)
        right = (self.n, self.k) if self.transpose_b else (self.k, self.n)
        return (*left, self.lda), (*right, self.ldb), (self.m, self.n, self.ldc)


@dataclass(frozen=True, eq=False)
class Epilogue:
    """What is done to a product's result before it is written.

    Attributes
    ----------
    kind : str
        "bias" adds `bias` to every column. "relu_bias" also sets negative elements to zero. "relu_aux_bias" also writes
        a bit for every element to `mask`: whether it was above zero. "drelu_bgrad" sets elements whose bit is not set
        to zero, except NaN, and writes the sums of the rows to `bias`. "bgrada" writes the sums of A's rows over k to
        `bias`.
    bias : (m,) array
    mask : uint8 array or None
    mask_stride : int
        Bits from one column of the mask to the next, a multiple of 128.
    """

    kind: str
    bias: Array
    mask: Array | None = None
    mask_stride: int = 0


class Module(Protocol):
    """A compiled ``.cu`` file."""

    def kernel(self, name: str) -> Kernel:
        """The kernel called `name`, declared ``extern "C"``."""


class Runtime(Protocol):
    """Memory, kernels and matrix products of one device. All work goes to one stream, so it runs in the order of the
    calls.

    Attributes
    ----------
    device : str
        The name of the device.
    """

    device: str

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A new contiguous device array of zeros. Its first element is aligned for any access."""

    def write(self, host: HostArray, out: Array) -> None:
        """Copy a host array to a device array of the same shape and dtype, which may have padded rows."""

    def read(self, array: Array) -> HostArray:
        """A new contiguous host array; waits for all enqueued work."""

    def copy(self, source: Array, out: Array) -> None:
        """Copy between device arrays of the same shape and dtype; either may have padded rows."""

    def active(self) -> AbstractContextManager[Any]:
        """A context in which direct CuPy calls use this runtime's device and stream."""

    def synchronize(self) -> None:
        """Wait for all enqueued work."""

    def free_bytes(self) -> int:
        """Bytes of device memory that can still be allocated."""

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        """Page-locked host memory, from which the device copies asynchronously."""

    def mark(self) -> Mark:
        """Mark the current end of the stream."""

    def send(self, pinned: HostArray, out: Array, after: Mark) -> Mark:
        """Copy pinned memory to a contiguous device array on a second stream. The copy starts after the mark `after`
        and may overlap work enqueued since. Later work waits for the copy. Returns a mark at the end of the copy."""

    def wait(self, mark: Mark) -> None:
        """Wait until the work up to this mark is done. May be called on any thread."""

    def load(self, source: str, options: Sequence[str]) -> Module:
        """Compile CUDA C++ source text."""

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record the launches, products and device copies that `work` requests, without running them.

        Raises
        ------
        CaptureError
            It does something else, such as allocating memory, copying to or from the host, compiling or waiting, or the
            device does not support capture. Nothing has run.
        """

    def launch(
        self,
        kernel: Kernel,
        grid: Dimensions,
        block: Dimensions,
        arguments: Sequence[Argument],
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel on ``grid`` blocks of ``block`` threads, with `shared_bytes` of dynamic shared memory per
        block."""

    def allow_tf32(self, allow: bool) -> None:
        """Allow or forbid rounding the factors of float32 products to TF32 (10 bits). Forbidden by default."""

    def product(self, operands: Operands, epilogue: Epilogue) -> Product | None:
        """A product with an epilogue, or None if the device has none that meets the contract: the order of sums depends
        only on shapes, and NaN propagates."""

    def gemm(self, operands: Operands) -> None:
        """A matrix product."""
