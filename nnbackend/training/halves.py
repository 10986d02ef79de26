"""A training step in two halves, with the sum over all ranks in between.

Each half is an executor of the backend's own: Numba compiles both, CuPy captures both. What a sum over ranks is stays
unknown to them.
"""

from __future__ import annotations

from collections.abc import Callable

from nnbackend.backends.contract import Array, Backend, Executor

__all__ = ["Clear", "SummedExecutor"]


class SummedExecutor(Executor):
    """Runs the step up to its gradients, sums them over all ranks, and goes on with the sums.

    Parameters
    ----------
    gradients : Executor
        The first half.
    reduce : callable
        Replaces the gradients by their sum.
    update : Executor
        The second half.
    """

    def __init__(self, gradients: Executor, reduce: Callable[[], None], update: Executor) -> None:
        self.name = f"{update.name}, in two halves"
        self.reason = f"gradients are summed over all ranks in between; {update.reason}"
        self._gradients, self._reduce, self._update = gradients, reduce, update

    def run(self, repeats: int) -> None:
        for _ in range(repeats):
            self._gradients.run(1)
            self._reduce()
            self._update.run(1)


class Clear(Executor):
    """The first half of a step for a rank that has no row of the batch: gradients of zero.

    Parameters
    ----------
    backend : Backend
    gradients : (size,) array
    """

    name = "plain"
    reason = "this rank has no rows of the batch"

    def __init__(self, backend: Backend, gradients: Array) -> None:
        self._backend, self._gradients = backend, gradients
        self._zeros = backend.empty(gradients.shape, gradients.dtype)

    def run(self, repeats: int) -> None:
        self._backend.copy(self._zeros, self._gradients)
