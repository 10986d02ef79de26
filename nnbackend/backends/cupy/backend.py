"""The CuPy backend: memory on a GPU, and executors that replay a recorded step as a CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from nnbackend.backends.contract import Array, Call, Executor, HostArray, PlainExecutor
from nnbackend.backends.cupy.dense_program import DenseProgram, UnsupportedStepError
from nnbackend.backends.cupy.dense_step import MOST_NETWORKS, DenseStep, DenseStepExecutor, dense_step
from nnbackend.backends.cupy.epilogues import with_epilogues, with_sums
from nnbackend.backends.cupy.fusion import fuse
from nnbackend.backends.cupy.graph import GraphExecutor
from nnbackend.backends.cupy.interface import Runtime
from nnbackend.backends.cupy.kernels import KernelLibrary
from nnbackend.backends.cupy.operations import CupyOperations
from nnbackend.backends.cupy.plain_sgd import with_plain_sgd
from nnbackend.backends.cupy.probe import probe
from nnbackend.backends.cupy.staging import PinnedStaging
from nnbackend.backends.executor import Division
from nnbackend.errors import BackendUnavailableError, UnknownNameError

__all__ = ["CupyBackend"]

_PRECISIONS = ("float32", "tf32")


class CupyBackend(CupyOperations):
    """One NVIDIA GPU.

    Operations don't wait for the device. After the first run of a step they neither allocate nor compile, because
    temporary memory and kernels are kept. All work goes to one stream, never the default one, so a step can be captured
    in a CUDA graph.

    Parameters
    ----------
    runtime : Runtime, optional
        Provides memory and runs kernels. Default: the current CUDA device.
    precision : {"float32", "tf32"}, optional
        Precision of products of float32 matrices. "tf32" rounds their factors to 10 bits, which tensor cores multiply
        several times faster; results then agree with the other backends to about 1e-3 instead of 1e-6. Sums, all other
        operations and float64 are not affected.
    epilogues : bool, optional
        Whether products may also compute the operations after them, such as adding a bias and applying ReLU, where
        cuBLASLt can. False takes more launches, and results differ in rounding.
    two_kernels : bool, optional
        Whether two kernels may compute the whole training step of a small network of dense layers. False computes it
        with cuBLAS, and results differ in rounding.

    Raises
    ------
    UnknownNameError
        The precision is unknown.
    BackendUnavailableError
        No CUDA device is usable; the message says why and what to do.
    """

    name = "cupy"
    # Rows start at multiples of 16 bytes, so that cuBLAS can load four floats at a time for any layer width.
    row_multiple = 4
    works_apart = True
    together = MOST_NETWORKS

    def __init__(
        self,
        runtime: Runtime | None = None,
        precision: str = "float32",
        epilogues: bool = True,
        two_kernels: bool = True,
    ) -> None:
        if precision not in _PRECISIONS:
            raise UnknownNameError("precision", precision, _PRECISIONS)
        if runtime is None:
            reason, remedy = probe()
            if reason is not None:
                raise BackendUnavailableError(self.name, reason, remedy)
            from nnbackend.backends.cupy.runtime import CudaRuntime

            runtime = CudaRuntime()
        self.device = runtime.device + (", products in TF32" if precision == "tf32" else "")
        self.runtime = runtime
        self.precision = precision
        runtime.allow_tf32(precision == "tf32")
        self._epilogues, self._two_kernels = epilogues, two_kernels
        self._kernels = KernelLibrary(runtime)
        self._scratch = {}

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Memory and kernels stay on this process's device.
        return self._requested or (type(self), (None, self.precision, self._epilogues, self._two_kernels))

    # ---- memory --------------------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return self.runtime.zeros(shape, dtype)

    def from_host(self, array: HostArray) -> Array:
        out = self.runtime.zeros(array.shape, array.dtype)
        self.runtime.write(array, out)
        return out

    def write(self, array: HostArray, out: Array) -> None:
        self.runtime.write(array, out)

    def to_host(self, array: Array) -> HostArray:
        return self.runtime.read(array)

    def copy(self, source: Array, out: Array) -> None:
        self.runtime.copy(source, out)

    def synchronize(self) -> None:
        self.runtime.synchronize()

    def free_bytes(self) -> int:
        return self.runtime.free_bytes()

    def staging(self, halves: tuple[Array, Array], shape: tuple[int, ...], dtype: npt.DTypeLike) -> PinnedStaging:
        return PinnedStaging(self.runtime, halves, shape, dtype)

    # ---- running a recorded step ---------------------------------------------------------------------------

    def executor(self, calls: Sequence[Call]) -> Executor:
        try:
            program, reason = self._dense_step(calls)
        except UnsupportedStepError as error:
            return self._captured(calls, str(error))
        return DenseStepExecutor(self.runtime, self._plain_dense_step, program, reason)

    def explain_executor(self, calls: Sequence[Call]) -> tuple[str, str]:
        try:
            return DenseStepExecutor.name, self._dense_step(calls)[1]
        except UnsupportedStepError as error:
            division = _divide(calls, calls, str(error))
            return division.name, division.reason

    def _dense_step(self, calls: Sequence[Call]) -> tuple[DenseProgram, str]:
        if not self._two_kernels:
            raise UnsupportedStepError("they are switched off")
        if self.precision != "float32":
            raise UnsupportedStepError("they do not use tensor cores")
        return dense_step(calls)

    def _plain_dense_step(self, programs: Sequence[DenseProgram]) -> Executor:
        return self.plain_executor([Call("run_dense_step", {"step": DenseStep(programs, self.from_host)})])

    def run_dense_step(self, step: DenseStep) -> None:
        """Compute a training step; see :mod:`nnbackend.backends.cupy.dense_step`."""
        step.launch(self._launch)

    def _captured(self, calls: Sequence[Call], refusal: str) -> Executor:
        """The executor that captures the operations of a step, some of them fused."""
        ours = with_plain_sgd(calls, self.view, self.from_host)
        if self._epilogues:
            ours = with_epilogues(ours, self._product_with, self.runtime.zeros)
        ours = fuse(ours)
        if self._epilogues:
            ours = with_sums(ours, self._product_with)

        def captured(segment: Sequence[Call]) -> Executor:
            return GraphExecutor(self.runtime, self.plain_executor(segment))

        return _divide(ours, calls, refusal).executor(captured, self.plain_executor)

    def plain_executor(self, calls: Sequence[Call]) -> Executor:
        return _DeviceExecutor(self, calls)


def _divide(calls: Sequence[Call], recorded: Sequence[Call], refusal: str) -> Division:
    """User-defined functions are not captured: they may do things that a graph cannot record, some without an error.

    Parameters
    ----------
    calls, recorded : sequence of Call
        Some of the recorded calls may have been fused.
    refusal : str
        Why two kernels do not compute the step.
    """
    reason = GraphExecutor.reason
    if any(call.declaration is not None and call.declaration.role == "update" for call in recorded):
        reason += f"; not in two kernels: {refusal}"
    return Division(calls, lambda call: call.outside, GraphExecutor.name, reason, len(recorded))


class _DeviceExecutor(PlainExecutor):
    """Replays the list on the backend's stream, so that user-defined functions run in order with the kernels."""

    def __init__(self, backend: CupyBackend, calls: Sequence[Call]) -> None:
        super().__init__(backend, calls)
        self._runtime = backend.runtime

    def run(self, repeats: int) -> None:
        with self._runtime.active():
            super().run(repeats)
