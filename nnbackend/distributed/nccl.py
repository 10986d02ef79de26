"""GPUs that talk through NCCL, with MPI to bring them together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from nnbackend.backends.contract import Array, Backend
from nnbackend.errors import BackendUnavailableError

__all__ = ["DeviceGroup"]


class DeviceGroup:
    """The GPUs of all ranks, one for each.

    Parameters
    ----------
    backend : CupyBackend
        Whose device is this rank's.
    rank, size : int

    Raises
    ------
    BackendUnavailableError
        NCCL is not installed, or finds no way between the GPUs.

    Notes
    -----
    NCCL adds in an order that depends on the machines and the number of elements, not on time.
    """

    def __init__(self, backend: Backend, rank: int, size: int) -> None:
        with _active(backend):
            try:
                from cupyx.distributed import init_process_group

                # NCCL needs a number that all ranks know; MPI carries it to them.
                self._group: Any = init_process_group(size, rank, use_mpi=True)
            except (ImportError, RuntimeError) as error:
                raise BackendUnavailableError(
                    "cupy",
                    f"GPUs of several ranks talk through NCCL, which does not start: {error}",
                    "pip install nvidia-nccl-cu13 (or -cu12), and give every rank a GPU of its own",
                ) from error

    def reducer(self, backend: Backend, buffer: Array) -> Callable[[], None]:
        """A function that replaces a buffer by its sum over all ranks, in turn with what its stream does."""

        def reduce() -> None:
            with _active(backend):
                self._group.all_reduce(buffer, buffer, "sum")

        return reduce


def _active(backend: Backend) -> AbstractContextManager[Any]:
    """The backend's own device and stream, which CuPy then takes for the current ones."""
    active: AbstractContextManager[Any] = backend.runtime.active()  # type: ignore[attr-defined]
    return active
