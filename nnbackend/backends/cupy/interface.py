"""What the backend asks of the CUDA runtime.

:class:`~nnbackend.backends.cupy.runtime.CudaRuntime` provides it through CuPy. The tests provide it on the CPU, so that
the very same backend and kernels run where there is no GPU.
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

#: A kernel, ready to launch. Only its runtime knows its type.
Kernel = Any
#: Extents of a grid or of a block: x, y (1 if not given).
Dimensions = tuple[int, ...]
#: A point in the work asked for. Only its runtime knows its type.
Mark = Any
#: Argument of a kernel: a device array, or a NumPy scalar of the type the kernel declares.
Argument = Any

#: The null pointer. Not None: CuPy would hand the driver no address to read the argument from.
NULL = np.uint64(0)


class CaptureError(RuntimeError):
    """Work that cannot be captured in a graph, or a device that captures none; says what and why."""


class Graph(Protocol):
    """Captured work, ready to run."""

    def launch(self) -> None:
        """Run it, after what was asked for before. It reads and writes the memory that it was captured with."""


class Product(Protocol):
    """A matrix product with an epilogue, on certain buffers."""

    def launch(self) -> None:
        """Compute it, after what was asked for before."""


@dataclass(frozen=True, eq=False)
class Operands:
    """``C = op(A) op(B)``, or ``C += op(A) op(B)``, as cuBLAS has it: stored **by columns**, `op` transposes.

    Attributes
    ----------
    m, n, k : int
        op(A) is m x k, op(B) k x n, C m x n.
    a, b, c : device arrays of one real dtype
        Only their first element's address and their dtype count.
    lda, ldb, ldc : int
        Elements from one column to the next.
    adds : bool
        Whether the result is added to what C holds.
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
        """Rows, columns and leading dimension of A, B and C as they are stored."""
        left = (self.k, self.m) if self.transpose_a else (self.m, self.k)
        right = (self.n, self.k) if self.transpose_b else (self.k, self.n)
        return (*left, self.lda), (*right, self.ldb), (self.m, self.n, self.ldc)


@dataclass(frozen=True, eq=False)
class Epilogue:
    """What becomes of a product's result before it is written.

    Attributes
    ----------
    kind : str
        "bias": `bias` is added to every column. "relu_bias": and negative elements become zero. "relu_aux_bias": and
        `mask` gets a bit for every element, whether it was above zero. "drelu_bgrad": elements whose bit is not set
        become zero, and `bias` gets the sums of the rows. "bgrada": `bias` gets the sums of A's rows over k.
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
    """Memory, kernels and matrix products of one device, on one stream: work is done in the order it is asked for.

    Attributes
    ----------
    device : str
        What it is, for people to read.
    """

    device: str

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """A new contiguous device array of zeros. Its first element is aligned for any access."""

    def write(self, host: HostArray, out: Array) -> None:
        """Copy a host array to a device array of the same shape and dtype, which may have padded rows."""

    def read(self, array: Array) -> HostArray:
        """A new contiguous host array; waits for the work asked for so far."""

    def copy(self, source: Array, out: Array) -> None:
        """Copy between device arrays of one shape and dtype, each of which may have padded rows."""

    def active(self) -> AbstractContextManager[Any]:
        """Within this context code that uses CuPy itself works on this runtime's device and stream."""

    def synchronize(self) -> None:
        """Wait for the work asked for so far."""

    def free_bytes(self) -> int:
        """Memory of the device that can still be asked for."""

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        """Host memory that the device can copy from by itself while both are at work."""

    def mark(self) -> Mark:
        """The work asked for so far."""

    def send(self, pinned: HostArray, out: Array, after: Mark) -> Mark:
        """Copy pinned memory to a contiguous device array, aside: once the work up to `after` is done, while later work
        may run. What is asked for from now on comes after the copy. Returns the mark of its end."""

    def wait(self, mark: Mark) -> None:
        """Return when the work up to this mark is done. May be called on any thread."""

    def load(self, source: str, options: Sequence[str]) -> Module:
        """Compile CUDA C++ source text."""

    def capture(self, work: Callable[[], None]) -> Graph:
        """Note the launches, products and device copies that `work` asks for, instead of running them.

        Raises
        ------
        CaptureError
            It asks for something else: memory, a copy to or from the host, the compiler, or to wait. Or the device
            does not capture. Nothing has run then.
        """

    def launch(
        self,
        kernel: Kernel,
        grid: Dimensions,
        block: Dimensions,
        arguments: Sequence[Argument],
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel on ``grid`` blocks of ``block`` threads with so much dynamic shared memory a block."""

    def allow_tf32(self, allow: bool) -> None:
        """Whether products of float32 may round their factors to the 10 bits of TF32. At first they may not."""

    def product(self, operands: Operands, epilogue: Epilogue) -> Product | None:
        """A product with an epilogue, or None if the device has none that keeps the contract: sums in an order that
        shapes alone decide, and not-a-number in, not-a-number out."""

    def gemm(self, operands: Operands) -> None:
        """A matrix product."""
