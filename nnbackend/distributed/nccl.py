"""Sums over GPUs through NCCL, which MPI initialises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from nnbackend.backends.contract import Array, Backend
from nnbackend.errors import BackendUnavailableError

__all__ = ["DeviceGroup"]


class DeviceGroup:
    """The GPUs of all ranks, one per rank.

    Parameters
    ----------
    backend : CupyBackend
        The backend with this rank's device.
    rank, size : int

    Raises
    ------
    BackendUnavailableError
        NCCL is not installed, or cannot connect the GPUs.

    Notes
    -----
    The order in which NCCL adds depends on the machines and the number of elements, not on timing.
    """

    def __init__(self, backend: Backend, rank: int, size: int) -> None:
        with _active(backend):
            try:
                from cupyx.distributed import init_process_group

                # MPI distributes the identifier that NCCL needs on all ranks.
                self._group: Any = init_process_group(size, rank, use_mpi=True)
            except (ImportError, RuntimeError) as error:
                raise BackendUnavailableError(
                    "cupy",
                    f"the GPUs of several ranks communicate through NCCL, which does not start: {error}",
                    "pip install nvidia-nccl-cu13 (or -cu12), and give each rank its own GPU",
                ) from error

    def reducer(self, backend: Backend, buffer: Array) -> Callable[[], None]:
        """Return a function that replaces a buffer by its sum over all ranks, in the order of its stream."""

        def reduce() -> None:
            with _active(backend):
                self._group.all_reduce(buffer, buffer, "sum")

        return reduce


def _active(backend: Backend) -> AbstractContextManager[Any]:
    """A context that makes the backend's device and stream CuPy's current ones."""
    active: AbstractContextManager[Any] = backend.runtime.active()  # type: ignore[attr-defined]
    return active
